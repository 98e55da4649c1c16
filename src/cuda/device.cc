#include "cuda/device.h"

#include <fmt/format.h>

#include <array>
#include <mutex>
#include <vector>

#include "core/status_macros.h"
#include "cuda/driver.h"
#include "cuda/driver_api.h"

namespace billfish::cuda {
namespace {

Result<CudaDeviceInfo> ReadInfo(const DriverApi& api, int index) {
  CUdevice device = 0;
  BILLFISH_RETURN_IF_ERROR(Check(api.DeviceGet(&device, index), "looking up a device"));
  CudaDeviceInfo info;
  info.index = index;
  std::array<char, 256> name{};
  BILLFISH_RETURN_IF_ERROR(Check(api.DeviceGetName(name.data(), static_cast<int>(name.size()) - 1, device), "reading a device's name"));
  info.name = name.data();
  BILLFISH_RETURN_IF_ERROR(Check(api.DeviceTotalMem(&info.memory_bytes, device), "reading a device's memory size"));
  BILLFISH_RETURN_IF_ERROR(Check(api.DriverGetVersion(&info.driver_version), "reading the driver's version"));
  int l2_bytes = 0, shared_bytes = 0;
  const std::pair<CUdevice_attribute, int*> attributes[] = {{kDeviceComputeCapabilityMajor, &info.major},
                                                            {kDeviceComputeCapabilityMinor, &info.minor},
                                                            {kDeviceMultiprocessorCount, &info.sms},
                                                            {kDeviceL2CacheBytes, &l2_bytes},
                                                            {kDeviceMaxSharedBytesPerBlock, &shared_bytes}};
  for (const auto& [which, value] : attributes) {
    BILLFISH_RETURN_IF_ERROR(Check(api.DeviceGetAttribute(value, which, device), "reading a device's attributes"));
  }
  info.l2_bytes = static_cast<size_t>(l2_bytes);
  info.shared_bytes = static_cast<size_t>(shared_bytes);
  return info;
}

Result<int> CountDevices(const DriverApi& api) {
  int count = 0;
  BILLFISH_RETURN_IF_ERROR(Check(api.DeviceGetCount(&count), "counting the devices"));
  if (count == 0) {
    return Status(ErrorCode::kNotFound,
                  "a GPU was asked for, but the CUDA driver sees none; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use the CPU");
  }
  return count;
}

}  // namespace

std::string Arch::Target() const {
  // From 9.0 on, wgmma and its successors exist only in the architecture's own ("a") target.
  return fmt::format("sm_{}{}", number(), major >= 9 ? "a" : "");
}

int Arch::SharedBytesOfSm() const {
  if (major == 9 || major == 10) return 228 << 10;
  if (*this == Arch{8, 0}) return 164 << 10;
  return 100 << 10;
}

Result<const GpuDevice*> GpuDevice::Get(int index) {
  static auto& mutex = *new std::mutex;
  static auto& devices = *new std::vector<std::unique_ptr<GpuDevice>>;
  const std::lock_guard lock(mutex);
  if (index >= 0 && static_cast<size_t>(index) < devices.size() && devices[static_cast<size_t>(index)] != nullptr) {
    return devices[static_cast<size_t>(index)].get();
  }
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  BILLFISH_ASSIGN_OR_RETURN(const int count, CountDevices(*api));
  if (index < 0 || index >= count) {
    return Status(ErrorCode::kNotFound,
                  fmt::format("GPU {} was asked for, but this machine shows {} (0 to {}); name one of them", index, count, count - 1));
  }
  auto device = std::make_unique<GpuDevice>();
  BILLFISH_ASSIGN_OR_RETURN(device->info_, ReadInfo(*api, index));
  BILLFISH_RETURN_IF_ERROR(Check(api->DevicePrimaryCtxRetain(&device->context_, index), "opening the device's primary context"));
  devices.resize(static_cast<size_t>(count));
  devices[static_cast<size_t>(index)] = std::move(device);
  return devices[static_cast<size_t>(index)].get();
}

Status GpuDevice::MakeCurrent() const {
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  return Check(api->CtxSetCurrent(context_), "making the device's context current");
}

Status Launch(const LoadedKernel& kernel, const LaunchShape& shape, CUstream stream, std::span<void*> parameters) {
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  std::array<CUlaunchAttribute, 2> attributes{};
  unsigned used = 0;
  if (shape.cluster_x > 1) {
    attributes[used].id = kLaunchClusterDimension;
    attributes[used++].value.cluster_dim = {shape.cluster_x, 1, 1};
  }
  if (shape.dependent) {
    attributes[used].id = kLaunchProgrammaticStreamSerialization;
    attributes[used++].value.programmatic_stream_serialization_allowed = 1;
  }
  const CUlaunchConfig config = {shape.grid_x,       shape.grid_y, shape.grid_z,      shape.threads, 1, 1,
                                 shape.shared_bytes, stream,       attributes.data(), used};
  const CUresult result = api->LaunchKernelEx(&config, kernel.function, parameters.data(), nullptr);
  if (result == kCudaSuccess) return OkStatus();
  return Check(result, fmt::format("launching {} (grid {} x {} x {}, {} threads, {} bytes of shared memory, clusters of {})", kernel.name,
                                   shape.grid_x, shape.grid_y, shape.grid_z, shape.threads, shape.shared_bytes, shape.cluster_x)
                           .c_str());
}

}  // namespace billfish::cuda

namespace billfish {

Result<std::vector<CudaDeviceInfo>> CudaDevices() {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::DriverApi* api, cuda::Driver());
  BILLFISH_ASSIGN_OR_RETURN(const int count, cuda::CountDevices(*api));
  std::vector<CudaDeviceInfo> devices;
  for (int index = 0; index < count; ++index) {
    BILLFISH_ASSIGN_OR_RETURN(CudaDeviceInfo info, cuda::ReadInfo(*api, index));
    devices.push_back(std::move(info));
  }
  return devices;
}

}  // namespace billfish
