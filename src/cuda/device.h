// A GPU of this machine: its properties and primary context; memory and launches on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "billfish/cuda.h"
#include "billfish/status.h"
#include "cuda/driver_types.h"

namespace billfish::cuda {

/// Compute capability, for tables and names. {9, 0} compiles as sm_90a.
struct Arch {
  int major = 0, minor = 0;
  bool operator==(const Arch&) const = default;
  int number() const { return major * 10 + minor; }
  /// "sm_80", "sm_90a": the exact target that NVRTC compiles for.
  std::string Target() const;
  /// Bytes of shared memory of a multiprocessor (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"). A block
  /// costs 1 KB of it beyond its own.
  int SharedBytesOfSm() const;
};

/// The primary context of one GPU. Lives as long as the process.
class GpuDevice {
 public:
  /// kNotFound (no driver, no such device), kDevice.
  static Result<const GpuDevice*> Get(int index);

  const CudaDeviceInfo& info() const { return info_; }
  Arch arch() const { return {info_.major, info_.minor}; }
  /// Makes the context current on this thread. Every entry point that calls the driver does so first.
  Status MakeCurrent() const;

 private:
  CudaDeviceInfo info_;
  CUcontext context_ = nullptr;
};

/// A kernel that is loaded on a device. The module is never unloaded: plans of any lifetime may hold it.
struct LoadedKernel {
  CUfunction function = nullptr;
  std::string name;
};

struct LaunchShape {
  uint32_t grid_x = 1, grid_y = 1, grid_z = 1;
  uint32_t threads = 1;
  uint32_t shared_bytes = 0;  ///< dynamic; above 48 KB the loader has raised the limit, see KernelSpec
  uint32_t cluster_x = 1;     ///< CTAs of a cluster along x (sm_90 and up)
  bool dependent = false;  ///< programmatic dependent launch: the kernel calls griddepcontrol.wait before it reads its predecessor's output
};

/// Stream-ordered launch; `parameters` are pointers to the kernel's arguments in order.
Status Launch(const LoadedKernel& kernel, const LaunchShape& shape, CUstream stream, std::span<void*> parameters);

}  // namespace billfish::cuda
