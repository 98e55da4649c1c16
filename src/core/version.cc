#include "billfish/version.h"

#include <fstream>

#include "billfish_commit.h"

namespace billfish {
namespace {

#if defined(__clang__)
constexpr std::string_view kCompiler = "clang " __clang_version__;
#elif defined(__GNUC__)
constexpr std::string_view kCompiler = "gcc " __VERSION__;
#else
constexpr std::string_view kCompiler = "unknown compiler";
#endif

#if defined(NDEBUG)
constexpr std::string_view kBuild = "optimised";
#else
constexpr std::string_view kBuild = "debug";
#endif

}  // namespace

VersionInfo Version() { return {BILLFISH_VERSION, BILLFISH_COMMIT, kCompiler, kBuild}; }

std::string CpuIsa() {
  std::string isa;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // The builtin takes only literals.
#define BILLFISH_NOTE_ISA(name) \
  if (__builtin_cpu_supports(name)) isa += isa.empty() ? name : " " name
  BILLFISH_NOTE_ISA("sse2");
  BILLFISH_NOTE_ISA("avx2");
  BILLFISH_NOTE_ISA("fma");
  BILLFISH_NOTE_ISA("avx512f");
  BILLFISH_NOTE_ISA("avx512bw");
  BILLFISH_NOTE_ISA("avx512vl");
  BILLFISH_NOTE_ISA("avx512vnni");
  BILLFISH_NOTE_ISA("avx512vbmi");
  BILLFISH_NOTE_ISA("avx512bf16");
#undef BILLFISH_NOTE_ISA
#elif defined(__aarch64__)
  isa = "neon";
#endif
  return isa.empty() ? "none beyond the baseline" : isa;
}

std::string CpuName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line)) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

}  // namespace billfish
