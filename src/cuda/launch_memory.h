// What kernels keep from launch to launch, for each workspace apart: the workspace itself may hold anything.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <unordered_map>

#include "billfish/cuda.h"
#include "billfish/status.h"
#include "cuda/device.h"

namespace billfish::cuda {

/// May be used by several threads at once. Objects live as long as the process: launches of any age may use the memory.
class LaunchMemory {
 public:
  /// A place takes `bytes`, a multiple of 128; a device has as many as `places`.
  LaunchMemory(size_t bytes, size_t places) : bytes_(bytes), places_(places) {}

  /// Allocates all places of the device, zeros, if it has not been done. Errors: those of Allocate.
  Status Reserve(const GpuDevice& device);
  /// The place of a workspace, always the same; null if the process has used many workspaces. Precondition: Reserve.
  void* Of(const GpuDevice& device, const void* workspace);

 private:
  struct Pool {
    DeviceBuffer memory;
    std::unordered_map<const void*, size_t> places;
  };
  size_t bytes_, places_;
  std::mutex mutex_;
  std::map<int, Pool> pools_;  ///< by device
};

}  // namespace billfish::cuda
