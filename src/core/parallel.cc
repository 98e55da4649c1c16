#include "core/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <csignal>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace billfish {
namespace {

// A region is `threads` bodies; the caller and the pool's workers claim them one by one. The caller never waits for a worker that has
// not begun: where the processor is shared with other programs, it runs the unclaimed bodies itself.
//
//   ticket   epoch (32 bits) | threads (16) | next unclaimed body (16)     one compare-and-swap claims a body of exactly this epoch
//   body_    written before the ticket is published; stays valid until every claimed body has finished
class Pool {
 public:
  static Pool& Get() {
    static Pool& pool = *Create();
    return pool;
  }

  /// False if another thread's region occupies the pool.
  bool TryRun(int threads, FunctionRef<void(int)> body) {
    const std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    Grow(threads - 1);
    body_ = &body;
    unfinished_.store(threads, std::memory_order_relaxed);
    const uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
    ticket_.store(uint64_t{epoch} << 32 | static_cast<uint64_t>(threads) << 16, std::memory_order_release);
    epoch_.store(epoch, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) epoch_.notify_all();
    RunClaimed();
    for (int spins = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < kJoinSpins) {
        Pause();
      } else {
        std::this_thread::yield();
      }
    }
    return true;
  }

 private:
  static constexpr int kJoinSpins = 2000;
  static constexpr int kIdleSpins = 4000;

  static void Pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

  void RunClaimed() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while ((ticket & 0xffff) < (ticket >> 16 & 0xffff)) {
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acquire)) continue;
      (*body_)(static_cast<int>(ticket & 0xffff));
      unfinished_.fetch_sub(1, std::memory_order_release);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  // Never destroyed: workers may outlive main's statics. A forked child has none of its parent's threads, and maybe a mutex that one of
  // them held: it begins afresh and starts its own workers.
  static Pool* Create() {
    static Pool* pool = new Pool;
    ::pthread_atfork(nullptr, nullptr, [] { new (pool) Pool; });
    return pool;
  }

  void Grow(int workers) {
    if (workers_ >= workers) return;
    sigset_t all, before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);  // workers inherit it: signals go to the program's own threads
    try {
      for (; workers_ < workers; ++workers_) std::thread([this] { Work(); }).detach();
    } catch (const std::system_error&) {
      // The system grants no more threads: the caller runs what the others leave.
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void Work();

  std::mutex busy_;
  int workers_ = 0;
  const FunctionRef<void(int)>* body_ = nullptr;
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int> unfinished_{0};
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<int> sleepers_{0};
};

thread_local bool inside_region = false;

void Pool::Work() {
  inside_region = true;
  uint32_t seen = 0;
  while (true) {
    uint32_t epoch = epoch_.load(std::memory_order_acquire);
    for (int spins = 0; epoch == seen && spins < kIdleSpins; ++spins) {
      Pause();
      epoch = epoch_.load(std::memory_order_acquire);
    }
    if (epoch == seen) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      epoch_.wait(seen, std::memory_order_seq_cst);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
      continue;
    }
    seen = epoch;
    RunClaimed();
  }
}

}  // namespace

void RunOnThreads(int threads, FunctionRef<void(int)> body) {
  constexpr int kMost = 4096;
  if (threads > 1 && threads <= kMost && !inside_region) {
    inside_region = true;
    const bool done = Pool::Get().TryRun(threads, body);
    inside_region = false;
    if (done) return;
  }
  for (int thread = 0; thread < threads; ++thread) body(thread);
}

void ParallelFor(int threads, int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  const int64_t grains = (count + grain - 1) / grain;
  const int used = static_cast<int>(std::min<int64_t>(threads, grains));
  if (used <= 1) {
    if (count > 0) body(0, count);
    return;
  }
  RunOnThreads(used, [&](int thread) {
    const int64_t begin = grains * thread / used * grain;
    const int64_t end = std::min(grains * (thread + 1) / used * grain, count);
    if (begin < end) body(begin, end);
  });
}

}  // namespace billfish
