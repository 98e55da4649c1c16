// The one place that starts threads: a parallel region over a pool of workers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace billfish {

/// A borrowed callable, no allocation. The callable must outlive the call it is passed to.
template <class Signature>
class FunctionRef;

template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      FunctionRef(F&& f)  // NOLINT(google-explicit-constructor,bugprone-forwarding-reference-overload): made to be passed lambdas
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R { return (*static_cast<std::remove_reference_t<F>*>(object))(args...); }) {}

  R operator()(Args... args) const { return call_(object_, args...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

/// Calls body(thread) for thread = 0 .. threads-1, at most `threads` at a time, and waits for all. threads >= 1.
/// The caller runs whatever bodies no worker has taken up yet, so bodies must not wait for each other; where the processor is shared
/// with other programs, a region costs no more than running it alone. A call inside a region, or while another thread's region
/// occupies the workers, runs its bodies one after the other. Workers take no signals. A forked child starts workers of its own; one
/// forked inside a body must exec or exit.
void RunOnThreads(int threads, FunctionRef<void(int)> body);

/// body(begin, end) over [0, count), cut into `threads` contiguous ranges of nearly equal length, each a multiple of `grain`
/// except the last. Ranges that would be empty are not called.
void ParallelFor(int threads, int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t)> body);

}  // namespace billfish
