#include "cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace billfish::cpu {
namespace {

#if defined(__x86_64__)
struct Cpuid {
  unsigned a = 0, b = 0, c = 0, d = 0;
  Cpuid(unsigned leaf, unsigned subleaf) {
    if (__get_cpuid_count(leaf, subleaf, &a, &b, &c, &d) == 0) a = b = c = d = 0;
  }
};

constexpr bool Bit(unsigned word, int bit) { return ((word >> bit) & 1) != 0; }

/// XCR0: which register states the system saves on a context switch. Needs CPUID.1:ECX.OSXSAVE.
unsigned ReadXcr0() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

CpuFeatures Detect() {
  CpuFeatures f;
  const Cpuid leaf1(1, 0), leaf7(7, 0), leaf7_1(7, 1);
  if (!Bit(leaf1.c, 27)) return f;  // OSXSAVE
  const unsigned xcr0 = ReadXcr0();
  constexpr unsigned kYmm = 0x06, kZmm = 0xE6;  // XMM | YMM, and opmask | ZMM 0-15 high | ZMM 16-31
  if ((xcr0 & kYmm) != kYmm) return f;
  f.avx2 = Bit(leaf7.b, 5);
  f.fma = Bit(leaf1.c, 12);
  f.f16c = Bit(leaf1.c, 29);
  if (f.avx2 && f.fma && f.f16c) f.tier = Tier::kAvx2;
  if ((xcr0 & kZmm) != kZmm) return f;
  f.avx512f = Bit(leaf7.b, 16);
  f.avx512dq = Bit(leaf7.b, 17);
  f.avx512cd = Bit(leaf7.b, 28);
  f.avx512bw = Bit(leaf7.b, 30);
  f.avx512vl = Bit(leaf7.b, 31);
  f.avx512vbmi = Bit(leaf7.c, 1);
  f.avx512vnni = Bit(leaf7.c, 11);
  f.avx512bf16 = Bit(leaf7_1.a, 5);
  if (f.tier == Tier::kAvx2 && f.avx512f && f.avx512dq && f.avx512cd && f.avx512bw && f.avx512vl) f.tier = Tier::kAvx512;
  if (f.tier == Tier::kAvx512 && f.avx512bf16 && f.avx512vnni && f.avx512vbmi) f.tier = Tier::kAvx512Bf16;
  return f;
}
#else
CpuFeatures Detect() { return {}; }
#endif

}  // namespace

std::string_view TierName(Tier tier) {
  switch (tier) {
    case Tier::kScalar:
      return "scalar";
    case Tier::kAvx2:
      return "avx2";
    case Tier::kAvx512:
      return "avx512";
    case Tier::kAvx512Bf16:
      return "avx512bf16";
  }
  return "";
}

const CpuFeatures& DetectCpu() {
  static const CpuFeatures features = Detect();
  return features;
}

}  // namespace billfish::cpu
