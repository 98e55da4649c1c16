#include <immintrin.h>

#include "cpu/peak_loops.h"

namespace billfish::cpu::avx2 {

int FmaLoop(int64_t count) {
  __m256 w = _mm256_set1_ps(1.0f), x = _mm256_set1_ps(0x1p-30f);
  __m256 a = w, b = w, c = w, d = w, e = w, f = w, g = w, h = w, i = w, j = w, k = w, l = w;
  for (int64_t round = 0; round < 2 * count; ++round) {
    a = _mm256_fmadd_ps(w, x, a), b = _mm256_fmadd_ps(w, x, b), c = _mm256_fmadd_ps(w, x, c), d = _mm256_fmadd_ps(w, x, d);
    e = _mm256_fmadd_ps(w, x, e), f = _mm256_fmadd_ps(w, x, f), g = _mm256_fmadd_ps(w, x, g), h = _mm256_fmadd_ps(w, x, h);
    i = _mm256_fmadd_ps(w, x, i), j = _mm256_fmadd_ps(w, x, j), k = _mm256_fmadd_ps(w, x, k), l = _mm256_fmadd_ps(w, x, l);
    __asm__ volatile("" : "+x"(w), "+x"(x));  // the compiler may not merge equal sums' operands across rounds
  }
  a = a + b + c + d + e + f + g + h + i + j + k + l;
  __asm__ volatile("" : : "x"(a));
  return 24 * 8 * 2;
}

uint64_t ReadAll(const std::byte* p, size_t bytes) {
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  const auto at = [&](size_t i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i)); };
  for (size_t i = 0; i < bytes; i += 128) {
    a = _mm256_xor_si256(a, at(i)), b = _mm256_xor_si256(b, at(i + 32));
    c = _mm256_xor_si256(c, at(i + 64)), d = _mm256_xor_si256(d, at(i + 96));
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
  return uint64_t(_mm256_extract_epi64(all, 0));
}

}  // namespace billfish::cpu::avx2
