#include "cuda/driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <utility>

#include "core/status_macros.h"
#include "cuda/driver_api.h"
#include "cuda/library_search.h"

namespace billfish::cuda {

Result<const DriverApi*> Driver() {
  // Never destroyed, like everything here that lives as long as the process: a caller's static object may free its memory later.
  static const auto& driver = *new Result<DriverApi>(OpenDriver("libcuda.so.1"));
  if (!driver.ok()) return driver.error();
  return &driver.value();
}

Result<DriverApi> OpenDriver(const char* library) {
  void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return Status(ErrorCode::kNotFound,
                  fmt::format("a GPU was asked for, but the CUDA driver {} cannot be opened ({}); install NVIDIA's driver, or in a "
                              "container start it with access to the GPU, or use the CPU",
                              library, dlerror()));
  }
  DriverApi api;
  const char* missing = nullptr;
#define BILLFISH_RESOLVE(member, symbol, parameters) Resolve(handle, symbol, api.member, missing);
  BILLFISH_DRIVER_API(BILLFISH_RESOLVE)
#undef BILLFISH_RESOLVE
  if (missing != nullptr) {
    return Status(
        ErrorCode::kNotFound,
        fmt::format("a GPU was asked for, but the CUDA driver {} has no {}; billfish needs a driver for CUDA 12.0 or later (525 or "
                    "later), update it or use the CPU",
                    library, missing));
  }
  const CUresult result = api.Init(0);
  if (result == kCudaErrorNoDevice) {
    return Status(
        ErrorCode::kNotFound,
        fmt::format("a GPU was asked for, but the CUDA driver {} sees none; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use the CPU",
                    library));
  }
  if (result != kCudaSuccess) {
    const char* text = nullptr;
    api.GetErrorString(result, &text);
    return Status(ErrorCode::kNotFound,
                  fmt::format("a GPU was asked for, but the CUDA driver {} does not start: {} (error {}); check nvidia-smi, or use the CPU",
                              library, text != nullptr ? text : "no description", static_cast<int>(result)));
  }
  return api;
}

Status Check(CUresult result, const char* what) {
  if (result == kCudaSuccess) return OkStatus();
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  const char* name = nullptr;
  const char* text = nullptr;
  api->GetErrorName(result, &name);
  api->GetErrorString(result, &text);
  const ErrorCode code = result == kCudaErrorOutOfMemory ? ErrorCode::kOutOfMemory : ErrorCode::kDevice;
  return Status(code, fmt::format("{} failed on the GPU: {} ({}, error {})", what, text != nullptr ? text : "unknown error",
                                  name != nullptr ? name : "no name", static_cast<int>(result)));
}

}  // namespace billfish::cuda
