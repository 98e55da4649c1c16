#include "cuda/launch_memory.h"

#include <utility>

#include "core/status_macros.h"
#include "cuda/driver.h"
#include "cuda/driver_api.h"

namespace billfish::cuda {

Status LaunchMemory::Reserve(const GpuDevice& device) {
  const std::lock_guard lock(mutex_);
  Pool& pool = pools_[device.info().index];
  if (pool.memory.bytes() > 0) return OkStatus();
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  BILLFISH_ASSIGN_OR_RETURN(DeviceBuffer memory, DeviceBuffer::Allocate({Device::Kind::kCuda, device.info().index}, bytes_ * places_));
  const auto address = static_cast<CUdeviceptr>(reinterpret_cast<uintptr_t>(memory.data()));
  BILLFISH_RETURN_IF_ERROR(Check(api->MemsetD8Async(address, 0, memory.bytes(), nullptr), "clearing what kernels keep"));
  BILLFISH_RETURN_IF_ERROR(Check(api->StreamSynchronize(nullptr), "clearing what kernels keep"));
  pool.memory = std::move(memory);
  return OkStatus();
}

void* LaunchMemory::Of(const GpuDevice& device, const void* workspace) {
  const std::lock_guard lock(mutex_);
  Pool& pool = pools_[device.info().index];
  const auto [found, added] = pool.places.try_emplace(workspace, pool.places.size());
  if (added && found->second == places_) {
    pool.places.erase(found);
    return nullptr;
  }
  return pool.memory.data() + found->second * bytes_;
}

}  // namespace billfish::cuda
