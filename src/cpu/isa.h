// Which instruction sets this process may use: CPUID says what the processor has, XCR0 what the operating system saves.
#pragma once

#include <cstdint>
#include <string_view>

namespace billfish::cpu {

/// Each tier includes those before it.
enum class Tier : uint8_t {
  kScalar,      ///< any processor
  kAvx2,        ///< AVX2, FMA, F16C
  kAvx512,      ///< AVX-512 F, BW, VL, DQ, CD
  kAvx512Bf16,  ///< and BF16, VNNI, VBMI
};

/// "scalar", "avx2", "avx512", "avx512bf16".
std::string_view TierName(Tier tier);

struct CpuFeatures {
  Tier tier = Tier::kScalar;
  bool avx2 = false, fma = false, f16c = false;
  bool avx512f = false, avx512bw = false, avx512vl = false, avx512dq = false, avx512cd = false;
  bool avx512bf16 = false, avx512vnni = false, avx512vbmi = false;
};

/// Detected once, then constant. Thread-safe.
const CpuFeatures& DetectCpu();

}  // namespace billfish::cpu
