// Version: what this build of billfish is and what the processor it runs on can do.
#pragma once

#include <string>
#include <string_view>

namespace billfish {

struct VersionInfo {
  std::string_view version;   ///< "0.1.0"
  std::string_view commit;    ///< twelve digits of the commit, "-dirty" behind it if files differed, or "unknown"
  std::string_view compiler;  ///< "gcc 12.2.0"
  std::string_view build;     ///< "optimised" or "debug"
};

/// Of the library; static storage.
VersionInfo Version();

/// The instruction sets of this processor that billfish's kernels can use, lowest first and blank between them, for example
/// "sse2 avx2 fma avx512f avx512bw avx512bf16". Only what the operating system has enabled.
std::string CpuIsa();

/// The processor's name as the system gives it, or "unknown processor".
std::string CpuName();

}  // namespace billfish
