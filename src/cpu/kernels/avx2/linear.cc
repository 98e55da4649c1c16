// linear_avx2: one panel of 32 output rows times fp32 activations on processors without AVX-512, every code and scale, fp32 FMA.
//
//   y[t, n] = factor[n] * sum_k (code[n, k] * scale[n, chunk]) x[t, k] + bias[n]
//
// Lane = output row; 32 rows are four vectors of 8. Up to 4 activation rows: each vector of 8 rows is decoded in registers, chunk by chunk,
// and the chunk's sums are scaled by one FMA. More: sixteen registers do not hold a tile and its decoder, so a slab is first expanded to
// fp32 with its scales, [k][32 rows] = 32 KiB in L1, and then multiplied with all rows of the job.
//   E2M1   vpermps looks the magnitude up by bits 2:0 of the shifted lane, bit 3 moves to the sign
//   int4   mask, convert; (q - 8) s = fma(q, s, -8 s), one rounding;  with zero points (q - z) is exact and one product rounds
//   E4M3   unpack with zero, sign to bit 31, magnitude to 26:20, times 2^120 (exact, subnormals included)
// code * scale is exact for E2M1 with power-of-two or E4M3 scales and for int4 with bf16 or fp16 scales.
//
//   pipeline   (5 rows and more) per slab: expand; then tiles of 16 rows x 6 activations (12 sums + 2 weights + 1 broadcast), sums kept in
//   scratch limits     two FMAs per cycle (8 rows each); one activation row: 4 to 6 operations per 8 weights, of which half fit two pipes
//   only
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <utility>

#include "cpu/kernels/avx2/kernels.h"

namespace billfish::cpu::avx2 {
namespace {

#define BILLFISH_INLINE inline __attribute__((always_inline))

template <int kCount, class F>
BILLFISH_INLINE void Unrolled(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) { (f.template operator()<i>(), ...); }
  (std::make_integer_sequence<int, kCount>{});
}

BILLFISH_INLINE __m128i Load8(const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
BILLFISH_INLINE __m128i Load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
BILLFISH_INLINE __m256i Load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

/// 8 scales -> fp32 (encodings in panel_layout.h).
BILLFISH_INLINE __m256 ScaleVector(Scales kind, const uint8_t* p) {
  switch (kind) {
    case Scales::kExponent:
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(127), _mm256_cvtepu8_epi32(Load8(p))), 23));
    case Scales::kE5M3: {
      const __m256i magnitude = _mm256_slli_epi32(_mm256_cvtepu8_epi32(Load8(p)), 20);
      return _mm256_castsi256_ps(_mm256_add_epi32(magnitude, _mm256_set1_epi32((127 - kE5M3Bias) << 23)));
    }
    case Scales::kBF16:
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(Load16(p)), 16));
    case Scales::kF16:
      return _mm256_cvtph_ps(Load16(p));
    case Scales::kF32:
      return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
    case Scales::kNone:
      break;
  }
  return _mm256_set1_ps(1.0f);
}

/// 8 rows of the k-th element of a unit, times scale if kScaled; p points at their 32 bytes (16 for fp16) of the unit half.
template <Codes kCodes, int k, bool kScaled>
BILLFISH_INLINE __m256 Expand(const uint8_t* p, __m256 scale, __m256 zero) {
  if constexpr (CodeBitsOf(kCodes) == 4) {
    constexpr int kShift = k % 2 * 16 + k / 2 * 4;
    const __m256i raw = Load32(p);
    const __m256i shifted = _mm256_srli_epi32(raw, kShift);
    if constexpr (kCodes == Codes::kE2M1) {
      const __m256 table = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
      const __m256i sign = _mm256_and_si256(_mm256_slli_epi32(raw, 28 - kShift), _mm256_set1_epi32(int(0x80000000u)));
      const __m256 value = _mm256_xor_ps(_mm256_permutevar8x32_ps(table, shifted), _mm256_castsi256_ps(sign));
      return kScaled ? _mm256_mul_ps(value, scale) : value;
    }
    const __m256 q = _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(15)));
    if constexpr (kCodes == Codes::kInt4 && kScaled) return _mm256_fmadd_ps(q, scale, _mm256_mul_ps(scale, _mm256_set1_ps(-8.0f)));
    const __m256 value = _mm256_sub_ps(q, kCodes == Codes::kInt4 ? _mm256_set1_ps(8.0f) : zero);
    return kScaled ? _mm256_mul_ps(value, scale) : value;
  } else if constexpr (kCodes == Codes::kE4M3) {
    const __m256i raw = Load32(p);
    const __m256i words = k < 2 ? _mm256_unpacklo_epi8(raw, _mm256_setzero_si256()) : _mm256_unpackhi_epi8(raw, _mm256_setzero_si256());
    const __m256i code = k % 2 == 0 ? _mm256_slli_epi32(words, 16) : words;  // byte now at bits 23:16
    const __m256i sign = _mm256_and_si256(_mm256_slli_epi32(code, 8), _mm256_set1_epi32(int(0x80000000u)));
    const __m256i bits = _mm256_or_si256(sign, _mm256_and_si256(_mm256_slli_epi32(code, 4), _mm256_set1_epi32(0x07F00000)));
    const __m256 value = _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(0x1p120f));
    return kScaled ? _mm256_mul_ps(value, scale) : value;
  } else if constexpr (kCodes == Codes::kBF16) {
    const __m256i raw = Load32(p);
    return _mm256_castsi256_ps(k == 0 ? _mm256_slli_epi32(raw, 16) : _mm256_and_si256(raw, _mm256_set1_epi32(int(0xFFFF0000u))));
  } else if constexpr (kCodes == Codes::kF16) {
    return _mm256_cvtph_ps(Load16(p));
  } else {
    return _mm256_castsi256_ps(Load32(p));
  }
}

/// One slab -> expanded [k][32]; returns the start of the next slab.
template <Codes kCodes, bool kScaled>
const uint8_t* ExpandSlab(const PanelLayout& layout, const uint8_t* slab, int chunks, float* expanded) {
  constexpr int kUnitK = 32 / CodeBitsOf(kCodes);
  const int64_t scale_bytes = ScaleBytesOf(layout.scales);
  const uint8_t* scales = slab;
  const uint8_t* zeros = scales + layout.scale_part(chunks);
  const uint8_t* codes = zeros + layout.zero_part(chunks);
  for (int c = 0; c < chunks; ++c) {
    for (int block = 0; block < 4; ++block) {
      const int64_t at = int64_t{c} * kPanelRows + block * 8;
      const __m256 scale = kScaled ? ScaleVector(layout.scales, scales + at * scale_bytes) : _mm256_set1_ps(1.0f);
      const __m256 zero = kCodes == Codes::kInt4Zero ? _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(Load8(zeros + at))) : _mm256_setzero_ps();
      float* to = expanded + block * 8;
      for (int u = 0; u < layout.chunk_k / kUnitK; ++u) {
        const uint8_t* half = codes + int64_t{u} * 2 * int64_t{kLine} + block / 2 * int64_t{kLine};
        Unrolled<kUnitK>([&]<int k>() __attribute__((always_inline)) {
          const uint8_t* p = kCodes == Codes::kF16 ? half + 32 * k + 16 * (block % 2) : half + 32 * (block % 2);
          _mm256_store_ps(to + (u * kUnitK + k) * kPanelRows, Expand<kCodes, k, kScaled>(p, scale, zero));
        });
      }
    }
    codes += layout.chunk_k / kUnitK * 2 * int64_t{kLine};
    expanded += layout.chunk_k * kPanelRows;
  }
  return codes;
}

constexpr int kMaxStreamed = 4;
constexpr int kPrefetchBytes = 4096;

/// sums[T, 32] += one slab times T rows, decoded in registers; returns the start of the next slab.
template <Codes kCodes, bool kScaled, int T>
const uint8_t* StreamSlab(const PanelLayout& layout, const uint8_t* slab, int chunks, const uint8_t* x, float* sums) {
  constexpr int kUnitK = 32 / CodeBitsOf(kCodes);
  constexpr int kWays = T == 1 ? 4 : 2;
  constexpr int kUnits = kUnitK >= 4 ? 1 : 4 / kUnitK;  // at least 4 k per iteration, so that every way is used
  const int64_t scale_bytes = ScaleBytesOf(layout.scales);
  const uint8_t* scales = slab;
  const uint8_t* zeros = scales + layout.scale_part(chunks);
  const uint8_t* codes = zeros + layout.zero_part(chunks);
  const int units = layout.chunk_k / kUnitK;
  for (int c = 0; c < chunks; ++c) {
    for (int block = 0; block < 4; ++block) {
      const int64_t at = int64_t{c} * kPanelRows + block * 8;
      const __m256 zero = kCodes == Codes::kInt4Zero ? _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(Load8(zeros + at))) : _mm256_setzero_ps();
      const uint8_t* p = codes + block / 2 * int64_t{kLine} + block % 2 * (kCodes == Codes::kF16 ? 16 : 32);
      const uint8_t* xk = x;
      __m256 sum[kWays][T];
      Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
        Unrolled<kWays>([&]<int i>() __attribute__((always_inline)) { sum[i][t] = _mm256_setzero_ps(); });
      });
      for (int u = 0; u < units; u += kUnits) {
        if (block % 2 == 0) _mm_prefetch(reinterpret_cast<const char*>(p + kPrefetchBytes), _MM_HINT_T0);
        Unrolled<kUnits * kUnitK>([&]<int k>() __attribute__((always_inline)) {
          const uint8_t* q = p + k / kUnitK * 2 * int64_t{kLine} + (kCodes == Codes::kF16 ? k % kUnitK * 32 : 0);
          const __m256 w = Expand<kCodes, k % kUnitK, false>(q, zero, zero);
          Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
            const __m256 xb = _mm256_broadcast_ss(reinterpret_cast<const float*>(xk + t * int64_t{kStagedF32Bytes}) + k);
            sum[k % kWays][t] = _mm256_fmadd_ps(w, xb, sum[k % kWays][t]);
          });
        });
        p += kUnits * 2 * int64_t{kLine};
        xk += kUnits * kUnitK * 4;
      }
      const __m256 scale = kScaled ? ScaleVector(layout.scales, scales + at * scale_bytes) : _mm256_set1_ps(1.0f);
      Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
        __m256 g = _mm256_add_ps(sum[0][t], sum[1][t]);
        if constexpr (kWays == 4) g = _mm256_add_ps(g, _mm256_add_ps(sum[2][t], sum[3][t]));
        float* to = sums + t * kPanelRows + block * 8;
        _mm256_store_ps(to, _mm256_fmadd_ps(g, scale, _mm256_load_ps(to)));
      });
    }
    codes += units * 2 * int64_t{kLine};
    x += layout.chunk_k * 4;
  }
  return codes;
}

/// sums[t, 8 * kBlocks] += expanded^T x for T rows.
template <int kBlocks, int T>
void Tile(const float* expanded, const uint8_t* x, int64_t count, float* sums) {
  __m256 sum[kBlocks][T];
  Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
    Unrolled<kBlocks>([&]<int b>() __attribute__((always_inline)) { sum[b][t] = _mm256_load_ps(sums + t * kPanelRows + 8 * b); });
  });
  for (int64_t k = 0; k < count; ++k) {
    __m256 w[kBlocks];
    Unrolled<kBlocks>([&]<int b>() __attribute__((always_inline)) { w[b] = _mm256_load_ps(expanded + k * kPanelRows + 8 * b); });
    Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
      const __m256 xb = _mm256_broadcast_ss(reinterpret_cast<const float*>(x + t * int64_t{kStagedF32Bytes}) + k);
      Unrolled<kBlocks>([&]<int b>() __attribute__((always_inline)) { sum[b][t] = _mm256_fmadd_ps(w[b], xb, sum[b][t]); });
    });
  }
  Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
    Unrolled<kBlocks>([&]<int b>() __attribute__((always_inline)) { _mm256_store_ps(sums + t * kPanelRows + 8 * b, sum[b][t]); });
  });
}

constexpr int kMaxTile = 6;

void Multiply(const float* expanded, const uint8_t* x, int64_t count, int rows, float* sums) {
  using TileFunction = void (*)(const float*, const uint8_t*, int64_t, float*);
  static constexpr TileFunction kTiles[kMaxTile + 1] = {nullptr, nullptr, &Tile<2, 2>, &Tile<2, 3>, &Tile<2, 4>, &Tile<2, 5>, &Tile<2, 6>};
  const int tiles = (rows + kMaxTile - 1) / kMaxTile;
  for (int i = 0; i < tiles; ++i) {
    const int begin = rows * i / tiles, end = rows * (i + 1) / tiles;
    for (int half = 0; half < 2; ++half) {
      kTiles[end - begin](expanded + 16 * half, x + size_t(begin) * kStagedF32Bytes, count, sums + begin * kPanelRows + 16 * half);
    }
  }
}

uint16_t RoundToBF16(uint32_t bits) {
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return uint16_t((bits >> 16) | 0x40u);
  return uint16_t((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

void StoreRows(const PanelJob& job, const float* sums) {
  for (int t = 0; t < job.rows; ++t) {
    for (int row = 0; row < job.cols; ++row) {
      float y = sums[t * kPanelRows + row];
      if (job.row_factor != nullptr) y *= job.row_factor[row];
      if (job.bias != nullptr) y += job.bias[row];
      const int64_t at = t * job.y_stride + row;
      if (job.y_bf16) {
        uint32_t bits;
        __builtin_memcpy(&bits, &y, 4);
        static_cast<uint16_t*>(job.y)[at] = RoundToBF16(bits);
      } else {
        static_cast<float*>(job.y)[at] = y;
      }
    }
  }
}

template <Codes kCodes, bool kScaled>
void Panel(const PanelJob& job) {
  using StreamFunction = const uint8_t* (*)(const PanelLayout&, const uint8_t*, int, const uint8_t*, float*);
  static constexpr StreamFunction kStream[kMaxStreamed + 1] = {nullptr, &StreamSlab<kCodes, kScaled, 1>, &StreamSlab<kCodes, kScaled, 2>,
                                                               &StreamSlab<kCodes, kScaled, 3>, &StreamSlab<kCodes, kScaled, 4>};
  const PanelLayout& layout = *job.layout;
  float* const expanded = reinterpret_cast<float*>(job.scratch);
  float* const sums = reinterpret_cast<float*>(job.scratch + kExpandedBytes);
  __builtin_memset(sums, 0, size_t(job.rows) * kPanelRows * sizeof(float));
  const uint8_t* slab = reinterpret_cast<const uint8_t*>(job.panel);
  for (int s = 0; s < layout.slabs(); ++s) {
    const int chunks = layout.chunks_in_slab(s);
    const uint8_t* x = reinterpret_cast<const uint8_t*>(job.x) + size_t(s) * job.slab_stride;
    if (job.rows <= kMaxStreamed) {
      slab = kStream[job.rows](layout, slab, chunks, x, sums);
      continue;
    }
    slab = ExpandSlab<kCodes, kScaled>(layout, slab, chunks, expanded);
    Multiply(expanded, x, int64_t{chunks} * layout.chunk_k, job.rows, sums);
  }
  StoreRows(job, sums);
}

}  // namespace

PanelFunction LinearPanel(const PanelLayout& layout) {
  const bool scaled = layout.scales != Scales::kNone;
  switch (layout.codes) {
    case Codes::kInt4:
      return scaled ? &Panel<Codes::kInt4, true> : &Panel<Codes::kInt4, false>;
    case Codes::kInt4Zero:
      return scaled ? &Panel<Codes::kInt4Zero, true> : &Panel<Codes::kInt4Zero, false>;
    case Codes::kE2M1:
      return scaled ? &Panel<Codes::kE2M1, true> : &Panel<Codes::kE2M1, false>;
    case Codes::kE4M3:
      return scaled ? &Panel<Codes::kE4M3, true> : &Panel<Codes::kE4M3, false>;
    case Codes::kBF16:
      return &Panel<Codes::kBF16, false>;
    case Codes::kF16:
      return &Panel<Codes::kF16, false>;
    case Codes::kF32:
      return &Panel<Codes::kF32, false>;
  }
  return nullptr;
}

}  // namespace billfish::cpu::avx2
