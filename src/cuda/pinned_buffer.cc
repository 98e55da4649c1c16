#include "cuda/pinned_buffer.h"

#include "core/status_macros.h"
#include "cuda/driver_api.h"

namespace billfish::cuda {

Result<PinnedBuffer> PinnedBuffer::Allocate(const GpuDevice& device, size_t bytes) {
  BILLFISH_RETURN_IF_ERROR(device.MakeCurrent());
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  PinnedBuffer buffer;
  BILLFISH_RETURN_IF_ERROR(Check(api->MemAllocHost(&buffer.data_, bytes), "allocating page-locked memory"));
  return buffer;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ == nullptr) return;
  if (const auto api = Driver(); api.ok()) api.value()->MemFreeHost(data_);
}

}  // namespace billfish::cuda
