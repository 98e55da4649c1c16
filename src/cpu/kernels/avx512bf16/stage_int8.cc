// StageInt8: rows of bf16 or fp32 -> int8 with one scale per 32 k (staged_int8.h), a slab of 8 blocks at a time.
//
//   q = round(x / a) in -128..127, a = -(the element of largest magnitude) / 128 over the 32 k, so a may be negative; BlockScales
#include <immintrin.h>

#include <algorithm>
#include <array>

#include "core/float_formats.h"
#include "cpu/kernels/avx512bf16/codes.h"
#include "cpu/kernels/avx512bf16/kernels.h"
#include "cpu/kernels/avx512bf16/staged_int8.h"

namespace billfish::cpu::avx512bf16 {
namespace {

constexpr int kBlocks = kSlabK / kBlock;

/// What makes codes unsigned (w4a8_linear.cc).
constexpr int OffsetOf(Codes codes) { return codes == Codes::kE2M1 ? 12 : codes == Codes::kInt4 ? 8 : 16; }

/// Squared rounding error of one block at a scale.
float RoundingError(__m512 v0, __m512 v1, float scale) {
  const __m512 inverse = _mm512_set1_ps(1.0f / scale), step = _mm512_set1_ps(scale), limit = _mm512_set1_ps(127.0f);
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const __m512 q0 = _mm512_min_ps(_mm512_roundscale_ps(_mm512_mul_ps(v0, inverse), kNearest), limit);
  const __m512 q1 = _mm512_min_ps(_mm512_roundscale_ps(_mm512_mul_ps(v1, inverse), kNearest), limit);
  const __m512 e0 = _mm512_fnmadd_ps(q0, step, v0), e1 = _mm512_fnmadd_ps(q1, step, v1);
  return _mm512_reduce_add_ps(_mm512_fmadd_ps(e0, e0, _mm512_mul_ps(e1, e1)));
}

/// The scale of a block whose largest element towers over the others, which then fall on few levels: of the scales that map it to
/// -128 .. -117 the one with the least error.
float ScaleBelowPeak(__m512 v0, __m512 v1, float largest) {
  float best = largest / -128.0f, least = RoundingError(v0, v1, best);
  for (int level = 127; level > 116; --level) {
    const float scale = largest / float(-level), error = RoundingError(v0, v1, scale);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

/// Orders fp32 numbers by magnitude as unsigned integers, the positive of two equals last.
__m512i KeyOf(__m512 v) { return _mm512_xor_si512(_mm512_rol_epi32(_mm512_castps_si512(v), 1), _mm512_set1_epi32(1)); }

/// The largest of the 16 numbers of each of 8 vectors.
__m256i LargestOfEach(const __m512i (&v)[kBlocks]) {
  const auto halve32 = [](__m512i a, __m512i b) { return _mm512_max_epu32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)); };
  const auto halve64 = [](__m512i a, __m512i b) { return _mm512_max_epu32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)); };
  const __m512i low = halve64(halve32(v[0], v[1]), halve32(v[2], v[3])), high = halve64(halve32(v[4], v[5]), halve32(v[6], v[7]));
  const __m512i both = _mm512_max_epu32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xDD));
  return _mm512_castsi512_si256(_mm512_max_epu32(_mm512_shuffle_i32x4(both, both, 0x08), _mm512_shuffle_i32x4(both, both, 0x0D)));
}

/// The scales of 8 blocks. Each block's largest element becomes -128 exactly (one more level than 127), unless it towers over the others
/// (at most two exceed a quarter of it).
__m256 BlockScales(const float* values) {
  __m512i keys[kBlocks];
  for (int b = 0; b < kBlocks; ++b) {
    keys[b] = _mm512_max_epu32(KeyOf(_mm512_load_ps(values + b * kBlock)), KeyOf(_mm512_load_ps(values + b * kBlock + 16)));
  }
  const __m256 largest = _mm256_castsi256_ps(_mm256_ror_epi32(_mm256_xor_si256(LargestOfEach(keys), _mm256_set1_epi32(1)), 1));
  const __m256 most = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), largest), quarter = _mm256_mul_ps(most, _mm256_set1_ps(0.25f));
  const __mmask8 live = _mm256_cmp_ps_mask(most, _mm256_set1_ps(0x1p-112f), _CMP_NLE_UQ);
  alignas(32) float scale[kBlocks];
  alignas(32) int32_t quarter_key[kBlocks];
  _mm256_store_ps(scale, _mm256_maskz_mul_ps(live, largest, _mm256_set1_ps(-0x1p-7f)));
  _mm256_store_si256(reinterpret_cast<__m256i*>(quarter_key), _mm256_rol_epi32(_mm256_castps_si256(quarter), 1));
  for (int b = 0; b < kBlocks; ++b) {
    const __m512i above = _mm512_set1_epi32(quarter_key[b] + 1);
    if (__builtin_popcount(_mm512_cmpgt_epu32_mask(keys[b], above)) > 2 || scale[b] == 0) continue;
    const __m512 v0 = _mm512_load_ps(values + b * kBlock), v1 = _mm512_load_ps(values + b * kBlock + 16);
    const unsigned above0 = _mm512_cmpgt_epu32_mask(KeyOf(v0), above), above1 = _mm512_cmpgt_epu32_mask(KeyOf(v1), above);
    if (__builtin_popcount(above0 | above1 << 16) <= 2) scale[b] = ScaleBelowPeak(v0, v1, scale[b] * -128.0f);
  }
  return _mm256_load_ps(scale);
}

/// values [256] -> one staged row of one slab, with start values per 16 k (halves) or 32 k.
void QuantizeSlab(const float* values, float scale_factor, int offset, bool halves, uint8_t* to) {
  const __m256 a = BlockScales(values);
  _mm256_storeu_ps(reinterpret_cast<float*>(to + kScalesAt), _mm256_mul_ps(a, _mm256_set1_ps(scale_factor)));
  alignas(32) float inverse[kBlocks];
  const __mmask8 live = _mm256_cmp_ps_mask(a, _mm256_setzero_ps(), _CMP_NEQ_UQ);
  _mm256_store_ps(inverse, _mm256_maskz_div_ps(live, _mm256_set1_ps(1.0f), a));

  // Packing four vectors leaves 16 bytes of each 128-bit lane: k 0..3 of the first, the second, ... vector. Each 8 k are reordered, too.
  alignas(64) static constexpr auto kOrder = [] {
    std::array<uint8_t, 64> order{};
    constexpr int kNibbles[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    for (int i = 0; i < 64; ++i) {
      const int k = i / 8 * 8 + kNibbles[i % 8];
      order[size_t(i)] = uint8_t(k % 16 / 4 * 16 + k / 16 * 4 + k % 4);
    }
    return order;
  }();
  const __m512i order = _mm512_load_si512(kOrder.data());
  int32_t* const starts = reinterpret_cast<int32_t*>(to + kStartsAt);
  const __m128i times = _mm_set1_epi32(-offset);
  for (int pair = 0; pair < kBlocks / 2; ++pair) {
    __m512i q[4];
    for (int i = 0; i < 4; ++i) {
      const __m512 v = _mm512_load_ps(values + pair * 2 * kBlock + i * 16);
      q[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inverse[2 * pair + i / 2])));
    }
    const __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
    const __m512i bytes = _mm512_permutexvar_epi8(order, packed);
    _mm512_storeu_si512(to + pair * 2 * kBlock, bytes);
    // vpsadbw adds unsigned bytes: shift -128..127 to 0..255 and take 16 * 128 off again.
    const __m512i eights = _mm512_sad_epu8(_mm512_xor_si512(bytes, _mm512_set1_epi8(char(0x80))), _mm512_setzero_si512());
    const __m512i sixteens = _mm512_add_epi32(eights, _mm512_shuffle_epi32(eights, _MM_PERM_BADC));
    const __m128i sums = _mm_sub_epi32(_mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, sixteens)), _mm_set1_epi32(16 * 128));
    if (halves) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(starts + 4 * pair), _mm_mullo_epi32(sums, times));
    } else {
      _mm_storeu_si64(starts + 2 * pair, _mm_mullo_epi32(_mm_hadd_epi32(sums, sums), times));
    }
  }
}

/// One bf16 or fp32 element, or sixteen, as fp32.
float Widen(float v) { return v; }
float Widen(uint16_t v) { return F32FromBF16(v); }
__m512 Widen16(const float* p) { return _mm512_loadu_ps(p); }
__m512 Widen16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}

/// Fills values [256]; what lies behind `count` is zero.
template <class From>
void FillSlab(const StageJob& job, const From* x, int64_t position, int64_t count, float* values) {
  int64_t i = 0;
  if (job.columns != nullptr) {
    for (; i < count; ++i) values[i] = job.columns[position + i] < 0 ? 0.0f : Widen(x[job.columns[position + i]]);
  } else {
    const int64_t live = std::min(count, std::max<int64_t>(job.layout->K - position, 0));
    for (; i + 16 <= live; i += 16) _mm512_store_ps(values + i, Widen16(x + position + i));
    for (; i < live; ++i) values[i] = Widen(x[position + i]);
  }
  std::fill(values + i, values + kSlabK, 0.0f);
}

}  // namespace

void StageInt8(const StageJob& job) {
  const PanelLayout& layout = *job.layout;
  const float scale_factor = layout.codes == Codes::kE2M1 ? 0.5f : 1.0f;
  for (int64_t row = job.begin; row < job.end; ++row) {
    const int64_t from = (job.source == nullptr ? row : job.source[row]) * job.x_stride;
    int64_t position = 0;
    for (int slab = 0; slab < layout.slabs(); ++slab) {
      const int64_t count = int64_t{layout.chunks_in_slab(slab)} * layout.chunk_k;
      alignas(64) float values[kSlabK];
      if (job.x_bf16) {
        FillSlab(job, static_cast<const uint16_t*>(job.x) + from, position, count, values);
      } else {
        FillSlab(job, static_cast<const float*>(job.x) + from, position, count, values);
      }
      std::byte* const to = job.staged + size_t(slab) * job.slab_stride + size_t(row) * kStagedInt8Bytes;
      QuantizeSlab(values, scale_factor, OffsetOf(layout.codes), layout.chunk_k == 16, reinterpret_cast<uint8_t*>(to));
      position += count;
    }
  }
}

}  // namespace billfish::cpu::avx512bf16
