// w4a8_linear_avx512vnni: 4-bit weights times activations rounded to int8 with one scale per 32 k.
//
//   y[t, n] = factor[n] * sum_b a[t, b] * sum_{chunks c of b} scale[n, c] * sum_{k in c} code[n, k] q[t, k] + bias[n]     b = 32 k
//   q = round(x / a), a = max |x| / 127 over the 32 k
//
// vpdpbusd adds four products u8 x s8 to an int32 lane (lane = output row). Codes become unsigned by an offset:
//   E2M1   u = 2 v + 12 in 0..24, offset 12, and a/2 is staged instead of a       (vpshufb lookup)
//   int4   u = q, offset 8                                                        (no lookup)
//   int4z  u = q - zero + 16 in 0..31, offset 16
// and sum (u - offset) q = sum u q - offset * sum q. The last term is known when staging, so the int32 sums simply start at
// -offset * sum q, a broadcast from memory that replaces clearing the register.
//
// Scaling, per 32 k and per 8 dots of each (row, half):
//   power of two   vcvtdq2ps, then vpsubusw takes d << 23 off the fp32 bits: an exact multiplication by 2^-d away from the multiply
//                  pipes, and zero saturates to zero (the low words subtract 0); then one FMA with a
//   others         vcvtdq2ps, a multiplication, one FMA;  chunks of 16: one multiplication, two FMAs for the pair
//
//   staged row   256 x int8, each 8 k in the order 0 4 1 5 2 6 3 7 (low nibbles of a lane are k 0 4 1 5, high nibbles 2 6 3 7)
//                8 x fp32 a            16 x int32 start values: one per 16 k for chunks of 16, else one per 32 k (8 used)
//   limits       two vpdpbusd per cycle; 8/9 of that for power-of-two scales, 8/10 for others, 8/11 for chunks of 16
#include <algorithm>
#include <array>
#include <cstring>

#include "core/float_formats.h"
#include "cpu/kernels/avx512bf16/codes.h"
#include "cpu/kernels/avx512bf16/kernels.h"
#include "cpu/kernels/avx512bf16/store_rows.h"
#include "cpu/kernels/avx512bf16/unrolled.h"

namespace billfish::cpu::avx512bf16 {
namespace {

constexpr size_t kScalesAt = kSlabK, kStartsAt = kSlabK + 8 * 4;
constexpr int kBlock = 32;
constexpr int kMaxTile = 8, kMaxTilePairs = 6;

constexpr int OffsetOf(Codes codes) { return codes == Codes::kE2M1 ? 12 : codes == Codes::kInt4 ? 8 : 16; }

alignas(16) constexpr uint8_t kE2M1Doubled[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

enum class Scaling { kNone, kExponent, kMultiply, kPairs };

struct Int8Args {
  const PanelJob* job;
  const uint8_t* x;
  float* sums;  ///< [T, 32], overwritten
};

/// 64 codes of one half panel -> unsigned bytes: low nibbles, then high nibbles.
template <Codes kCodes>
BILLFISH_INLINE __m512i Bytes(__m512i nibbles, __m512i table, __m512i offset) {
  if constexpr (kCodes == Codes::kE2M1) return _mm512_shuffle_epi8(table, nibbles);
  if constexpr (kCodes == Codes::kInt4Zero) return _mm512_add_epi8(nibbles, offset);
  return nibbles;
}

template <Codes kCodes, Scaling kScaling, int T>
void Tile(const Int8Args& a) {
  const PanelLayout& layout = *a.job->layout;
  const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(kE2M1Doubled)));
  const __m512i low_nibbles = _mm512_set1_epi8(15);
  constexpr int kChunksPerBlock = kScaling == Scaling::kPairs ? 2 : 1;
  constexpr int kUnits = 4 / kChunksPerBlock;
  const int blocks_per_chunk = kScaling == Scaling::kPairs ? 1 : layout.chunk_k / kBlock;
  const size_t scale_bytes = size_t(ScaleBytesOf(layout.scales)) * 16;
  const int slabs = layout.slabs();
  const uint8_t* w = reinterpret_cast<const uint8_t*>(a.job->panel);
  for (int i = 0; i < 2 * T; ++i) _mm512_store_ps(a.sums + 16 * i, _mm512_setzero_ps());
  for (int slab = 0; slab < slabs; ++slab) {
    const int chunks = layout.chunks_in_slab(slab);
    const uint8_t* scale = w;
    const uint8_t* zero = scale + layout.scale_part(chunks);
    const uint8_t* code = zero + layout.zero_part(chunks);
    const uint8_t* const x_slab = a.x + size_t(slab) * a.job->slab_stride;
    const uint8_t* x = x_slab;
    const uint8_t* x_scale = x_slab + kScalesAt;
    const uint8_t* x_start = x_slab + kStartsAt;
    const int blocks = (chunks * layout.chunk_k + kBlock - 1) / kBlock;
    for (int block = 0, in_chunk = 0; block < blocks; ++block) {
      __m512i offset[2] = {};
      if constexpr (kCodes == Codes::kInt4Zero && kScaling != Scaling::kPairs) {
        Unrolled<2>([&]<int h>() __attribute__((always_inline)) {
          const __m512i z = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zero + 16 * h)));
          offset[h] = _mm512_sub_epi8(_mm512_set1_epi8(16), _mm512_mullo_epi32(z, _mm512_set1_epi32(0x01010101)));
        });
      }
      __m512 f[2][T];
      const int live_chunks = kScaling == Scaling::kPairs ? std::min(2, chunks - 2 * block) : 1;
      Unrolled<kChunksPerBlock>([&]<int chunk>() __attribute__((always_inline)) {
        if (chunk > 0 && live_chunks < 2) return;  // an odd number of chunks of 16 ends inside a block
        __m512i g[2][T];
        Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
          g[0][t] = g[1][t] = _mm512_set1_epi32(*reinterpret_cast<const int*>(x_start + t * int64_t{kStagedInt8Bytes} + 4 * chunk));
        });
        Unrolled<kUnits>([&]<int unit>() __attribute__((always_inline)) {
          constexpr int kUnit = chunk * kUnits + unit;
          if constexpr (T <= 4) {
            _mm_prefetch(reinterpret_cast<const char*>(code + 3072 + kUnit * 2 * int(kLine)), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(code + 3072 + kUnit * 2 * int(kLine) + int(kLine)), _MM_HINT_T0);
          }
          const __m512i raw0 = Load(code + kUnit * 2 * kLine), raw1 = Load(code + kUnit * 2 * kLine + kLine);
          Unrolled<2>([&]<int high>() __attribute__((always_inline)) {
            const __m512i n0 = _mm512_and_si512(high ? _mm512_srli_epi16(raw0, 4) : raw0, low_nibbles);
            const __m512i n1 = _mm512_and_si512(high ? _mm512_srli_epi16(raw1, 4) : raw1, low_nibbles);
            const __m512i w0 = Bytes<kCodes>(n0, table, offset[0]), w1 = Bytes<kCodes>(n1, table, offset[1]);
            Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
              const __m512i xb = _mm512_set1_epi32(*reinterpret_cast<const int*>(x + t * int64_t{kStagedInt8Bytes} + kUnit * 8 + high * 4));
              g[0][t] = _mm512_dpbusd_epi32(g[0][t], w0, xb);
              g[1][t] = _mm512_dpbusd_epi32(g[1][t], w1, xb);
            });
          });
        });
        Unrolled<2>([&]<int h>() __attribute__((always_inline)) {
          if constexpr (kScaling == Scaling::kExponent) {
            const __m512i d = _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scale + 16 * h))), 23);
            Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
              f[h][t] = _mm512_castsi512_ps(_mm512_subs_epu16(_mm512_castps_si512(_mm512_cvtepi32_ps(g[h][t])), d));
            });
          } else if constexpr (kScaling == Scaling::kNone) {
            Unrolled<T>([&]<int t>() __attribute__((always_inline)) { f[h][t] = _mm512_cvtepi32_ps(g[h][t]); });
          } else {
            const __m512 s = ScaleVector(layout.scales, scale + (2 * chunk + h) * scale_bytes);
            Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
              const __m512 v = _mm512_cvtepi32_ps(g[h][t]);
              f[h][t] = chunk == 0 ? _mm512_mul_ps(v, s) : _mm512_fmadd_ps(v, s, f[h][t]);
            });
          }
        });
      });
      Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
        const __m512 as = _mm512_set1_ps(*reinterpret_cast<const float*>(x_scale + t * int64_t{kStagedInt8Bytes}));
        _mm512_store_ps(a.sums + 32 * t, _mm512_fmadd_ps(f[0][t], as, _mm512_load_ps(a.sums + 32 * t)));
        _mm512_store_ps(a.sums + 32 * t + 16, _mm512_fmadd_ps(f[1][t], as, _mm512_load_ps(a.sums + 32 * t + 16)));
      });
      code += size_t(live_chunks) * kUnits * 2 * kLine;
      x += kBlock;
      x_scale += 4;
      x_start += 4 * kChunksPerBlock;
      if (++in_chunk == blocks_per_chunk) {
        in_chunk = 0;
        scale += size_t{2} * kChunksPerBlock * scale_bytes;
        zero += kPanelRows;
      }
    }
    w = code;
  }
}

using TileFunction = void (*)(const Int8Args&);

template <Codes kCodes, Scaling kScaling, int... t>
constexpr std::array<TileFunction, sizeof...(t) + 1> TilesOf(std::integer_sequence<int, t...>) {
  return {nullptr, &Tile<kCodes, kScaling, t + 1>...};
}

template <Codes kCodes, Scaling kScaling>
void Panel(const PanelJob& job) {
  constexpr int kMost = kScaling == Scaling::kPairs ? kMaxTilePairs : kMaxTile;
  static constexpr auto kTiles = TilesOf<kCodes, kScaling>(std::make_integer_sequence<int, kMost>{});
  alignas(64) float sums[kMost * kPanelRows];
  const int tiles = (job.rows + kMost - 1) / kMost;
  for (int i = 0; i < tiles; ++i) {
    const int begin = job.rows * i / tiles, end = job.rows * (i + 1) / tiles;
    kTiles[size_t(end - begin)]({&job, reinterpret_cast<const uint8_t*>(job.x) + size_t(begin) * kStagedInt8Bytes, sums});
    StoreRows(job, begin, end - begin, sums);
  }
}

/// values [32] -> q (reordered), a, and the sums of q over the first and the second 16.
void QuantizeBlock(const float* values, float scale_factor, int8_t* q, float* scale, int sums[2]) {
  const __m512 v0 = _mm512_load_ps(values), v1 = _mm512_load_ps(values + 16);
  const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(v0), _mm512_abs_ps(v1)));
  const float a = most / 127.0f;
  const __m512 inverse = _mm512_set1_ps(most > 0x1p-120f ? 127.0f / most : 0.0f);
  const __m512i q0 = _mm512_cvtps_epi32(_mm512_mul_ps(v0, inverse)), q1 = _mm512_cvtps_epi32(_mm512_mul_ps(v1, inverse));
  sums[0] = _mm512_reduce_add_epi32(q0);
  sums[1] = _mm512_reduce_add_epi32(q1);
  const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm_shuffle_epi8(_mm512_cvtepi32_epi8(q0), order));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), _mm_shuffle_epi8(_mm512_cvtepi32_epi8(q1), order));
  *scale = a * scale_factor;
}

template <class From>
void FillSlab(const StageJob& job, const From* x, int64_t position, int64_t count, float* values) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t k = job.columns != nullptr ? job.columns[position + i] : position + i < job.layout->K ? position + i : -1;
    if (k < 0) {
      values[i] = 0.0f;
    } else if constexpr (sizeof(From) == 2) {
      values[i] = F32FromBF16(x[k]);
    } else {
      values[i] = x[k];
    }
  }
}

}  // namespace

void StageInt8(const StageJob& job) {
  const PanelLayout& layout = *job.layout;
  const float scale_factor = layout.codes == Codes::kE2M1 ? 0.5f : 1.0f;
  const int offset = OffsetOf(layout.codes);
  for (int64_t row = job.begin; row < job.end; ++row) {
    const int64_t from = (job.source == nullptr ? row : job.source[row]) * job.x_stride;
    int64_t position = 0;
    for (int slab = 0; slab < layout.slabs(); ++slab) {
      const int64_t count = int64_t{layout.chunks_in_slab(slab)} * layout.chunk_k;
      alignas(64) float values[kSlabK] = {};
      if (job.x_bf16) {
        FillSlab(job, static_cast<const uint16_t*>(job.x) + from, position, count, values);
      } else {
        FillSlab(job, static_cast<const float*>(job.x) + from, position, count, values);
      }
      std::byte* to = job.staged + size_t(slab) * job.slab_stride + size_t(row) * kStagedInt8Bytes;
      int8_t* q = reinterpret_cast<int8_t*>(to);
      float* scales = reinterpret_cast<float*>(to + kScalesAt);
      int32_t* starts = reinterpret_cast<int32_t*>(to + kStartsAt);
      for (int64_t b = 0; b * kBlock < count; ++b) {
        int sums[2];
        QuantizeBlock(values + b * kBlock, scale_factor, q + b * kBlock, scales + b, sums);
        if (layout.chunk_k == 16) {
          starts[2 * b] = -offset * sums[0];
          starts[2 * b + 1] = -offset * sums[1];
        } else {
          starts[b] = -offset * (sums[0] + sums[1]);
        }
      }
      position += count;
    }
  }
}

PanelFunction LinearPanelInt8(const PanelLayout& layout) {
  const bool pairs = layout.chunk_k == 16;
  const bool scaled = layout.scales != Scales::kNone;
  if (!pairs && layout.chunk_k % kBlock != 0) return nullptr;
  switch (layout.codes) {
    case Codes::kE2M1:
      if (!scaled) return pairs ? nullptr : &Panel<Codes::kE2M1, Scaling::kNone>;
      if (pairs) return &Panel<Codes::kE2M1, Scaling::kPairs>;
      return layout.scales == Scales::kExponent ? &Panel<Codes::kE2M1, Scaling::kExponent> : &Panel<Codes::kE2M1, Scaling::kMultiply>;
    case Codes::kInt4:
      if (!scaled) return pairs ? nullptr : &Panel<Codes::kInt4, Scaling::kNone>;
      return pairs ? &Panel<Codes::kInt4, Scaling::kPairs> : &Panel<Codes::kInt4, Scaling::kMultiply>;
    case Codes::kInt4Zero:
      if (pairs) return nullptr;
      return scaled ? &Panel<Codes::kInt4Zero, Scaling::kMultiply> : &Panel<Codes::kInt4Zero, Scaling::kNone>;
    default: return nullptr;
  }
}

}  // namespace billfish::cpu::avx512bf16
