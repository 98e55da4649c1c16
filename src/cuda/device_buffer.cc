// DeviceBuffer and CopyTensor.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "billfish/cuda.h"
#include "core/status_macros.h"
#include "cuda/device.h"
#include "cuda/driver_api.h"
#include "cuda/stream_context.h"

namespace billfish {
namespace {

cuda::CUdeviceptr Address(const void* pointer) { return static_cast<cuda::CUdeviceptr>(reinterpret_cast<uintptr_t>(pointer)); }

bool OnGpu(const ConstTensorView& view) { return view.device().kind == Device::Kind::kCuda; }

}  // namespace

Result<DeviceBuffer> DeviceBuffer::Allocate(Device device, size_t bytes) {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuOf(device, "device memory"));
  BILLFISH_RETURN_IF_ERROR(gpu->MakeCurrent());
  BILLFISH_ASSIGN_OR_RETURN(const cuda::DriverApi* api, cuda::Driver());
  DeviceBuffer buffer;
  buffer.device_ = device;
  if (bytes == 0) return buffer;
  cuda::CUdeviceptr address = 0;
  const cuda::CUresult result = api->MemAlloc(&address, bytes);
  if (result == cuda::kCudaErrorOutOfMemory) {
    size_t free = 0, total = 0;
    BILLFISH_RETURN_IF_ERROR(cuda::Check(api->MemGetInfo(&free, &total), "reading how much device memory is free"));
    return Status(
        ErrorCode::kOutOfMemory,
        fmt::format("{} bytes of memory were asked of GPU {} ({}), but {} of its {} bytes are free; use a smaller model, batch or "
                    "cache, or end other programs on the GPU",
                    bytes, device.index, gpu->info().name, free, total));
  }
  BILLFISH_RETURN_IF_ERROR(cuda::Check(result, "allocating device memory"));
  buffer.data_ = reinterpret_cast<std::byte*>(static_cast<uintptr_t>(address));
  buffer.bytes_ = bytes;
  return buffer;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ == nullptr) return;
  const auto gpu = cuda::GpuDevice::Get(device_.index);
  const auto api = cuda::Driver();
  // cuMemFree waits for the device's work. An error here is an earlier kernel's, which Synchronize reports.
  if (gpu.ok() && api.ok() && gpu.value()->MakeCurrent().ok()) api.value()->MemFree(Address(data_));
}

Status CopyTensor(TensorView dst, ConstTensorView src, CudaStream stream) {
  const ConstTensorView to = dst;
  if (to.dtype() != src.dtype() || !std::equal(to.shape().begin(), to.shape().end(), src.shape().begin(), src.shape().end())) {
    return Status(ErrorCode::kShapeMismatch,
                  fmt::format("a copy needs the same dtype and shape on both sides, got {} from {}", to.ToString(), src.ToString()));
  }
  if (!to.is_contiguous() || !src.is_contiguous()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a copy needs contiguous tensors, got {} from {} with gaps between rows; copy row by row", to.ToString(),
                              src.ToString()));
  }
  const size_t bytes = static_cast<size_t>(src.num_elements()) * static_cast<size_t>(DTypeBits(src.dtype())) / 8;
  if (bytes == 0) return OkStatus();
  if (!OnGpu(to) && !OnGpu(src)) {
    std::memmove(dst.mutable_data(), src.data(), bytes);
    return OkStatus();
  }
  const Device device = OnGpu(to) ? to.device() : src.device();
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuOf(device, "a copy"));
  BILLFISH_RETURN_IF_ERROR(gpu->MakeCurrent());
  BILLFISH_ASSIGN_OR_RETURN(const cuda::DriverApi* api, cuda::Driver());
  const auto on = static_cast<cuda::CUstream>(stream);
  if (OnGpu(to) && OnGpu(src)) {
    return cuda::Check(api->MemcpyAsync(Address(dst.data()), Address(src.data()), bytes, on), "copying between devices");
  }
  if (OnGpu(to)) {
    BILLFISH_RETURN_IF_ERROR(cuda::Check(api->MemcpyHtoDAsync(Address(dst.data()), src.data(), bytes, on), "copying to the device"));
  } else {
    BILLFISH_RETURN_IF_ERROR(
        cuda::Check(api->MemcpyDtoHAsync(dst.mutable_data(), Address(src.data()), bytes, on), "copying from the device"));
  }
  return cuda::Check(api->StreamSynchronize(on), "waiting for a copy");
}

}  // namespace billfish
