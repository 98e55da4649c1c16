// UploadSlots: two slots of page-locked and device memory, so that the host fills one while the device works on the other.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "billfish/cuda.h"
#include "billfish/status.h"
#include "cuda/device.h"
#include "cuda/driver_api.h"
#include "cuda/pinned_buffer.h"

namespace billfish::cuda {

/// Used by one thread. Waits for its work when destroyed.
class UploadSlots {
 public:
  UploadSlots() = default;
  UploadSlots(const UploadSlots&) = delete;
  UploadSlots& operator=(const UploadSlots&) = delete;
  ~UploadSlots();

  /// Two slots of `bytes` each on the host and on the device, and a stream of its own. kOutOfMemory, kDevice.
  Status Open(const GpuDevice& device, size_t bytes);

  CUstream stream() const { return stream_; }
  /// The other slot's page-locked memory, when the device no longer needs it.
  Result<std::byte*> Next();
  /// Starts the copy of the slot's first `bytes` to its device memory and returns that. Work on stream() that is ordered before the next
  /// call of Next but one may read it.
  Result<const std::byte*> Send(size_t bytes);
  /// Marks the end of the work that reads the slot.
  Status Release();
  /// For small arrays: `to`, on the device, has them when this returns.
  Status SendNow(const std::byte* to, std::span<const std::byte> from);
  Status Finish();

 private:
  struct Slot {
    PinnedBuffer host;
    DeviceBuffer device;
    CUevent released = nullptr;
    bool used = false;
  };
  const DriverApi* api_ = nullptr;
  CUstream stream_ = nullptr;
  std::array<Slot, 2> slots_;
  size_t current_ = 0;
};

}  // namespace billfish::cuda
