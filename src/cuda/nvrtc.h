// NVRTC, NVIDIA's compiler for device code as a library, opened at run time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"

namespace billfish::cuda {

// X(member, exported symbol, parameters), as in the NVRTC reference, version 13.0; unchanged since 11.2. Results are 0 for success.
#define BILLFISH_NVRTC_API(X)                                                                                                            \
  X(Version, "nvrtcVersion", (int* major, int* minor))                                                                                   \
  X(GetNumSupportedArchs, "nvrtcGetNumSupportedArchs", (int* count))                                                                     \
  X(GetSupportedArchs, "nvrtcGetSupportedArchs", (int* archs))                                                                           \
  X(CreateProgram, "nvrtcCreateProgram",                                                                                                 \
    (NvrtcProgram * program, const char* text, const char* name, int num_headers, const char* const* headers, const char* const* names)) \
  X(DestroyProgram, "nvrtcDestroyProgram", (NvrtcProgram * program))                                                                     \
  X(CompileProgram, "nvrtcCompileProgram", (NvrtcProgram program, int num_options, const char* const* options))                          \
  X(GetCubinSize, "nvrtcGetCUBINSize", (NvrtcProgram program, size_t * bytes))                                                           \
  X(GetCubin, "nvrtcGetCUBIN", (NvrtcProgram program, char* cubin))                                                                      \
  X(GetLogSize, "nvrtcGetProgramLogSize", (NvrtcProgram program, size_t * bytes))                                                        \
  X(GetLog, "nvrtcGetProgramLog", (NvrtcProgram program, char* log))

using NvrtcProgram = struct NvrtcProgramTag*;
using NvrtcResult = int;

struct NvrtcApi {
#define BILLFISH_NVRTC_MEMBER(member, symbol, parameters) NvrtcResult(*member) parameters = nullptr;
  BILLFISH_NVRTC_API(BILLFISH_NVRTC_MEMBER)
#undef BILLFISH_NVRTC_MEMBER
  std::string path;            ///< what was opened
  int major = 0, minor = 0;    ///< its version
  std::vector<int> supported;  ///< compute capabilities that it compiles for, 90 for 9.0

  /// NVRTC caches by itself, and takes --no-cache, from 12.9 on (reference of NVRTC, "Caching").
  bool HasNoCacheOption() const { return major > 12 || (major == 12 && minor >= 9); }

  std::string version() const { return std::to_string(major) + "." + std::to_string(minor); }
};

/// Opened once, from NvrtcCandidates(). kNotFound says where it was looked for and what to install.
Result<const NvrtcApi*> Nvrtc();

/// What Nvrtc() tries in turn. BILLFISH_NVRTC, a file or a folder, stands alone if set; else the loader's own path, the folders of the
/// program, of CUDA_HOME and CUDA_PATH, /usr/local/cuda, and the site-packages of the active Python environments.
std::vector<std::string> NvrtcCandidates();

/// The first of `candidates` that opens.
Result<NvrtcApi> OpenNvrtc(const std::vector<std::string>& candidates);

}  // namespace billfish::cuda
