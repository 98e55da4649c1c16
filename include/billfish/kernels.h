// The GPU kernels of this version: which there are, which are compiled and kept, and compiling them ahead of their first use.
//
// A kernel is compiled by NVRTC when it is first needed and kept in a folder: BILLFISH_CACHE_DIR, else $XDG_CACHE_HOME/billfish, else
// ~/.cache/billfish. Compiling needs no GPU, so a folder may be filled where there is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"

namespace billfish {

/// One kernel, configured for one kind of weight and shape, compiled for one target.
struct GpuKernel {
  std::string name;
  std::string configuration;  ///< "BF_CODES=1 BF_GROUP=32", the macros that it is compiled with
  std::string target;         ///< "sm_90a"
  bool kept = false;          ///< in the folder; the rest is known then
  size_t bytes = 0;
  int registers = 0;
  int spill_bytes = 0;
};

struct GpuKernelStore {
  std::string folder;    ///< empty: nothing is kept, none of the variables above is set
  uint64_t bytes = 0;    ///< of all entries, those of other versions too
  std::string compiler;  ///< "NVRTC 13.0 (libnvrtc.so.13)"
};

/// "sm_90", "sm_90a", "90" or "9.0" -> that target; "native" -> those of this machine's GPUs; "all" -> every supported one.
/// kInvalidArgument names what is accepted; kNotFound for "native" without a GPU.
Result<std::vector<std::string>> GpuTargets(std::string_view text);

/// kNotFound where NVRTC is missing: what is kept depends on its version.
Result<GpuKernelStore> GpuKernelFolder();

/// Every kernel whose name contains `name` for each target, as returned by GpuTargets. kNotFound as above, or if no kernel has that name.
Result<std::vector<GpuKernel>> ListGpuKernels(const std::vector<std::string>& targets, std::string_view name = {});

/// Compiles what is not kept yet, `threads` at a time, and keeps it. `progress` is called from one thread at a time after each kernel;
/// false stops with kCancelled. kCompile, kIo: the first failure; what was built before stays.
Result<std::vector<GpuKernel>> BuildGpuKernels(const std::vector<std::string>& targets, std::string_view name, int threads,
                                               const std::function<bool(size_t done, size_t total, const GpuKernel&)>& progress);

/// Removes everything that is kept, of all versions; the number of kernels.
Result<int> ClearGpuKernels();

}  // namespace billfish
