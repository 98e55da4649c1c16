#include <immintrin.h>

#include "cpu/kernels/avx512/peak_chains.h"
#include "cpu/peak_loops.h"

namespace billfish::cpu::avx512 {

int FmaLoop(int64_t count) {
  const __m512 x = _mm512_set1_ps(0x1p-30f);
  RunChains(
      count, x, [](__m512 sum, __m512 v) __attribute__((always_inline)) { return _mm512_fmadd_ps(v, v, sum); });
  return 24 * 16 * 2;
}

uint64_t ReadAll(const std::byte* p, size_t bytes) {
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  for (size_t i = 0; i < bytes; i += 256) {  // NTA: lines that will not be read again do not cost a write to the victim cache
    for (int line = 0; line < 4; ++line) _mm_prefetch(reinterpret_cast<const char*>(p + i + 8192 + 64 * line), _MM_HINT_NTA);
    a = _mm512_xor_si512(a, _mm512_loadu_si512(p + i)), b = _mm512_xor_si512(b, _mm512_loadu_si512(p + i + 64));
    c = _mm512_xor_si512(c, _mm512_loadu_si512(p + i + 128)), d = _mm512_xor_si512(d, _mm512_loadu_si512(p + i + 192));
  }
  const __m512i all = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
  return uint64_t(_mm512_reduce_add_epi64(all));
}

}  // namespace billfish::cpu::avx512
