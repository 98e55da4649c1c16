#include "core/parallel.h"

#include <omp.h>

#include <algorithm>

#if defined(__SANITIZE_THREAD__)
#define BILLFISH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BILLFISH_TSAN 1
#endif
#endif

#ifdef BILLFISH_TSAN
// ThreadSanitizer cannot see the fork and join inside an uninstrumented OpenMP runtime; these two calls tell it.
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace billfish {
namespace {

struct Region {
  FunctionRef<void(int)> body;
  char fork = 0;
  char join = 0;
};

#ifdef BILLFISH_TSAN
void OnFork(Region& region) { __tsan_release(&region.fork); }
void OnEnter(Region& region) { __tsan_acquire(&region.fork); }
void OnLeave(Region& region) { __tsan_release(&region.join); }
void OnJoin(Region& region) { __tsan_acquire(&region.join); }
#else
void OnFork(Region&) {}
void OnEnter(Region&) {}
void OnLeave(Region&) {}
void OnJoin(Region&) {}
#endif

#ifdef BILLFISH_TSAN
__attribute__((no_sanitize("thread")))
#endif
void RunOpenMp(int threads, Region* region) {
#pragma omp parallel num_threads(threads)
  {
    OnEnter(*region);
    // A runtime that grants fewer threads than asked (thread limits) still runs every body.
    for (int thread = omp_get_thread_num(); thread < threads; thread += omp_get_num_threads()) region->body(thread);
    OnLeave(*region);
  }
}

}  // namespace

void RunOnThreads(int threads, FunctionRef<void(int)> body) {
  if (threads <= 1 || omp_in_parallel()) {
    for (int thread = 0; thread < threads; ++thread) body(thread);
    return;
  }
  Region region{body};
  OnFork(region);
  RunOpenMp(threads, &region);
  OnJoin(region);
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
