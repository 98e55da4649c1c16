// Page-locked host memory: copies to and from a device run at the speed of the bus and beside the host's work.
#pragma once

#include <cstddef>
#include <utility>

#include "billfish/status.h"
#include "cuda/device.h"

namespace billfish::cuda {

class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(PinnedBuffer&& other) noexcept { std::swap(data_, other.data_); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~PinnedBuffer();
  /// Contents undefined. kDevice if the system refuses.
  static Result<PinnedBuffer> Allocate(const GpuDevice& device, size_t bytes);

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

}  // namespace billfish::cuda
