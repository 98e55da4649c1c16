// Kernels compiled for the running GPU by NVRTC and kept in a cache on disk.
//
// A kernel is one file of src/cuda/kernels, embedded in the library, compiled with a list of macro definitions. Every file defines one
// extern "C" __global__ function with the name given in the spec.
//
// Cache key: SHA-256 over the text of the file and of everything it includes, the file and function name, the definitions, the target, the
// flags, NVRTC's version and the version of the entry's format. Entries are written to a temporary file in the same folder and renamed;
// whoever loses a race uses its own result. A damaged entry is rebuilt. A folder that cannot be written is no error: the kernel is compiled
// and used. Folder: BILLFISH_CACHE_DIR, else $XDG_CACHE_HOME/billfish, else ~/.cache/billfish.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "billfish/status.h"
#include "cuda/device.h"

namespace billfish::cuda {

struct KernelSpec {
  std::string file;                                          ///< "w4a16_linear_decode.cu", a file of src/cuda/kernels
  std::string function;                                      ///< its extern "C" __global__ function
  std::vector<std::pair<std::string, std::string>> defines;  ///< in a fixed order; part of the key
  uint32_t shared_bytes = 0;                                 ///< dynamic shared memory that launches may use; not part of the key
  bool hot = false;                                          ///< spills, ignored setmaxnreg and serialised wgmma are mistakes, see CheckHot
};

/// What NVRTC made of a spec for one target.
struct CompiledKernel {
  std::vector<std::byte> cubin;
  std::string log;
  int registers = 0;
  int spill_bytes = 0;
};

/// Compiles; needs NVRTC but no GPU and no driver. kNotFound (NVRTC missing: says what to install), kUnsupported (NVRTC older than the
/// target), kCompile (with the compiler's log).
Result<CompiledKernel> CompileKernel(const KernelSpec& spec, Arch arch);

/// Fills registers and spill_bytes from the assembler's report in the log.
void ReadReport(CompiledKernel& kernel);

/// For hot specs kCompile, with the compiler's log, if it spilled, ignored a setmaxnreg or serialised wgmma; else ok. The tests hold every
/// spec to it on the compiler of the release; another NVRTC's worse code still runs.
Status CheckHot(const KernelSpec& spec, const CompiledKernel& kernel);

class KernelCache;
/// From the cache on disk, else compiled and put there. Null: no cache.
Result<CompiledKernel> CachedKernel(const KernelSpec& spec, Arch arch, const KernelCache* cache);

/// The kernel, ready to launch on the device: from this process's table, else from the cache on disk, else compiled. Thread-safe.
Result<LoadedKernel> LoadKernel(const KernelSpec& spec, const GpuDevice& device);

}  // namespace billfish::cuda
