#include <immintrin.h>

#include "cpu/kernels/avx512/peak_chains.h"
#include "cpu/peak_loops.h"

namespace billfish::cpu::avx512bf16 {

int Bf16Loop(int64_t count) {
  const __m512 x = _mm512_castsi512_ps(_mm512_set1_epi16(0x3000));
  RunChains(
      count, x, [](__m512 sum, __m512 v) __attribute__((always_inline)) { return _mm512_dpbf16_ps(sum, (__m512bh)v, (__m512bh)v); });
  return 24 * 32 * 2;
}

int Int8Loop(int64_t count) {
  const __m512i x = _mm512_set1_epi8(1);
  RunChains(
      count, x, [](__m512i sum, __m512i v) __attribute__((always_inline)) { return _mm512_dpbusd_epi32(sum, v, v); });
  return 24 * 64 * 2;
}

}  // namespace billfish::cpu::avx512bf16
