// ExecContext: what a forward call may use. Nothing else is global.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "billfish/status.h"

namespace billfish {

/// A caller-owned scratch buffer, 64-byte aligned. Forward calls carve it up and never allocate.
/// One workspace serves one call at a time.
class Workspace {
 public:
  Workspace() = default;
  /// Lends part of another workspace to a nested call; that one must outlive it. Alignment is the lender's duty.
  explicit Workspace(std::span<std::byte> borrowed) : memory_(borrowed.data(), Free(false)), bytes_(borrowed.size()) {}

  /// Grows to at least `bytes`; never shrinks; contents are lost. kOutOfMemory if the system refuses.
  Status Reserve(size_t bytes);
  std::span<std::byte> memory() const { return {memory_.get(), bytes_}; }

 private:
  struct Free {
    Free() : owned(true) {}
    explicit Free(bool owns) : owned(owns) {}
    bool owned;
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t bytes_ = 0;
};

/// Threads to use when the caller does not say: BILLFISH_THREADS if set to a number >= 1, else the CPUs this process may run on.
int DefaultThreads();

/// A CUstream (cudaStream_t); null = the device's default stream.
using CudaStream = void*;

/// On a GPU every call is ordered on `stream` and returns before the work is done; its workspace is device memory, lent by
/// Workspace(buffer.span()), and must stay alive and unused by other streams until then.
struct ExecContext {
  Workspace& workspace;
  int threads = DefaultThreads();  ///< CPU only; results do not depend on it
  CudaStream stream = nullptr;     ///< GPU only
};

}  // namespace billfish
