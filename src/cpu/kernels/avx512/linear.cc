// linear_avx512: one panel of 32 output rows times fp32 activations, every code and scale, fp32 FMA.
//
//   y[t, n] = factor[n] * sum_chunk scale[n, chunk] * sum_k code[n, k] x[t, k] + bias[n]
//
// Lane = output row. A unit (64 bytes per half) expands to one fp32 vector per k:
//   4-bit   shift the 32-bit lane right by 16 (k mod 2) + 4 (k / 2); vpermps looks up bits 3:0 and ignores the rest. With zero points
//           the nibble is masked, converted and the zero point subtracted instead.
//   E4M3    unpack bytes with zero -> words; sign to bit 31, magnitude to bits 26:20; times 2^120. The product is exact, and it turns
//           subnormal E4M3 numbers (which are subnormal fp32 numbers before it) into normal ones.
//   bf16    shift left by 16, or mask the high half.     fp16   vcvtph2ps of 32 bytes.     fp32   as it is
// The sums of one chunk are scaled once by an FMA into the row sums, so a product code * x is rounded once, inside its own FMA.
//
//   pipeline   tiles of at most 8 rows; per tile stream the panel once; factor, bias, store
//   limits     two FMAs per cycle (16 rows each); one row: about 3 vector operations per 16 weights
#include <immintrin.h>

#include <array>
#include <utility>

#include "cpu/kernels/avx512/kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12: _mm512_undefined_* inside its own headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace billfish::cpu::avx512 {
namespace {

#define BILLFISH_INLINE inline __attribute__((always_inline))

template <int kCount, class F>
BILLFISH_INLINE void Unrolled(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) { (f.template operator()<i>(), ...); }
  (std::make_integer_sequence<int, kCount>{});
}

alignas(64) constexpr float kE2M1[16] = {0.0f, 0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                         0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
alignas(64) constexpr float kInt4[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

BILLFISH_INLINE __m128i Load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
BILLFISH_INLINE __m256i Load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

/// 16 scales -> fp32 (encodings in panel_layout.h).
BILLFISH_INLINE __m512 ScaleVector(Scales kind, const uint8_t* p) {
  switch (kind) {
    case Scales::kExponent:
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(127), _mm512_cvtepu8_epi32(Load16(p))), 23));
    case Scales::kE5M3: {
      const __m512i magnitude = _mm512_slli_epi32(_mm512_cvtepu8_epi32(Load16(p)), 20);
      return _mm512_castsi512_ps(_mm512_add_epi32(magnitude, _mm512_set1_epi32((127 - kE5M3Bias) << 23)));
    }
    case Scales::kBF16:
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(Load32(p)), 16));
    case Scales::kF16:
      return _mm512_cvtph_ps(Load32(p));
    case Scales::kF32:
      return _mm512_loadu_ps(p);
    case Scales::kNone:
      break;
  }
  return _mm512_set1_ps(1.0f);
}

/// State of one half panel in one chunk: the lookup table, or the zero points as fp32.
struct State {
  __m512 table;
};

template <Codes kCodes>
BILLFISH_INLINE State Begin(const uint8_t* zeros) {
  if constexpr (kCodes == Codes::kInt4) return {_mm512_load_ps(kInt4)};
  if constexpr (kCodes == Codes::kE2M1) return {_mm512_load_ps(kE2M1)};
  if constexpr (kCodes == Codes::kInt4Zero) return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(Load16(zeros)))};
  return {_mm512_setzero_ps()};
}

/// 16 rows of the k-th element of the unit half at p.
template <Codes kCodes, int k>
BILLFISH_INLINE __m512 Expand(const uint8_t* p, const State& state) {
  if constexpr (kCodes == Codes::kF16) {
    return _mm512_cvtph_ps(Load32(p + 32 * k));
  } else {
    const __m512i raw = _mm512_loadu_si512(p);
    if constexpr (CodeBitsOf(kCodes) == 4) {
      constexpr int kShift = k % 2 * 16 + k / 2 * 4;
      const __m512i shifted = kShift == 0 ? raw : _mm512_srli_epi32(raw, kShift);
      if constexpr (kCodes == Codes::kInt4Zero) {
        return _mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(15))), state.table);
      }
      return _mm512_permutexvar_ps(shifted, state.table);
    } else if constexpr (kCodes == Codes::kE4M3) {
      const __m512i words = k < 2 ? _mm512_unpacklo_epi8(raw, _mm512_setzero_si512()) : _mm512_unpackhi_epi8(raw, _mm512_setzero_si512());
      const __m512i code = k % 2 == 0 ? _mm512_slli_epi32(words, 16) : words;  // byte now at bits 23:16
      const __m512i sign = _mm512_and_si512(_mm512_slli_epi32(code, 8), _mm512_set1_epi32(int(0x80000000u)));
      const __m512i bits = _mm512_ternarylogic_epi32(sign, _mm512_slli_epi32(code, 4), _mm512_set1_epi32(0x07F00000), 0xF8);  // a | (b & c)
      return _mm512_mul_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(0x1p120f));
    } else if constexpr (kCodes == Codes::kBF16) {
      return _mm512_castsi512_ps(k == 0 ? _mm512_slli_epi32(raw, 16) : _mm512_and_si512(raw, _mm512_set1_epi32(int(0xFFFF0000u))));
    } else {
      return _mm512_castsi512_ps(raw);
    }
  }
}

constexpr int kMaxTile = 8;
constexpr int kPrefetchBytes = 16384;  // far beyond the 4 KiB where the hardware prefetcher stops

struct TileArgs {
  const PanelJob* job;
  const uint8_t* x;
  float* sums;  ///< [T, 32], overwritten
};

template <Codes kCodes, bool kScaled, int T>
void Tile(const TileArgs& a) {
  constexpr int kUnitK = 32 / CodeBitsOf(kCodes);
  constexpr int kWays = T <= 2 ? 4 : T <= 4 ? 2 : 1;  // an FMA takes 4 cycles and two start per cycle: keep 8 sums in flight
  const PanelLayout& layout = *a.job->layout;
  const int units_per_chunk = layout.chunk_k / kUnitK;
  const size_t scale_bytes = size_t(ScaleBytesOf(layout.scales)) * 16;
  const int slabs = layout.slabs();
  const uint8_t* w = reinterpret_cast<const uint8_t*>(a.job->panel);
  float* sums = a.sums;
  for (int i = 0; i < 2 * T; ++i) _mm512_store_ps(sums + 16 * i, _mm512_setzero_ps());
  for (int slab = 0; slab < slabs; ++slab) {
    const int chunks = layout.chunks_in_slab(slab);
    const uint8_t* scale = w;
    const uint8_t* zero = scale + layout.scale_part(chunks);
    const uint8_t* code = zero + layout.zero_part(chunks);
    const uint8_t* x = a.x + size_t(slab) * a.job->slab_stride;
    for (const uint8_t* p = w; T <= 4 && p < code; p += kLine) _mm_prefetch(reinterpret_cast<const char*>(p + kPrefetchBytes), _MM_HINT_T0);
    // Without scales nothing happens between chunks: the whole slab is one.
    const bool joined = !kScaled && kCodes != Codes::kInt4Zero;
    const int rounds = joined ? 1 : chunks, units = joined ? chunks * units_per_chunk : units_per_chunk;
    for (int chunk = 0; chunk < rounds; ++chunk) {
      const State state0 = Begin<kCodes>(zero), state1 = Begin<kCodes>(zero + 16);
      __m512 sum[kWays][2][T];
      Unrolled<kWays>([&]<int i>() __attribute__((always_inline)) {
        Unrolled<T>([&]<int t>() __attribute__((always_inline)) { sum[i][0][t] = sum[i][1][t] = _mm512_setzero_ps(); });
      });
      constexpr int kUnits = kUnitK >= 4 ? 1 : 4 / kUnitK;  // per iteration: at least 4 k, so that every way is used
      for (int unit = 0; unit < units; unit += kUnits) {
        Unrolled<2 * kUnits>([&]<int i>() __attribute__((always_inline)) {
          _mm_prefetch(reinterpret_cast<const char*>(code + kPrefetchBytes + i * int(kLine)), _MM_HINT_T0);
        });
        Unrolled<kUnits * kUnitK>([&]<int k>() __attribute__((always_inline)) {
          const uint8_t* at = code + k / kUnitK * 2 * int64_t{kLine};
          const __m512 w0 = Expand<kCodes, k % kUnitK>(at, state0), w1 = Expand<kCodes, k % kUnitK>(at + kLine, state1);
          Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
            const __m512 xb = _mm512_set1_ps(*reinterpret_cast<const float*>(x + t * int64_t{kStagedF32Bytes} + 4 * k));
            sum[k % kWays][0][t] = _mm512_fmadd_ps(w0, xb, sum[k % kWays][0][t]);
            sum[k % kWays][1][t] = _mm512_fmadd_ps(w1, xb, sum[k % kWays][1][t]);
          });
        });
        code += kUnits * 2 * kLine;
        x += kUnits * kUnitK * 4;
      }
      const __m512 s0 = kScaled ? ScaleVector(layout.scales, scale) : _mm512_set1_ps(1.0f);
      const __m512 s1 = kScaled ? ScaleVector(layout.scales, scale + scale_bytes) : s0;
      Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
        Unrolled<2>([&]<int h>() __attribute__((always_inline)) {
          __m512 g = sum[0][h][t];
          if constexpr (kWays == 2) g = _mm512_add_ps(g, sum[1][h][t]);
          if constexpr (kWays == 4) g = _mm512_add_ps(_mm512_add_ps(g, sum[1][h][t]), _mm512_add_ps(sum[2][h][t], sum[3][h][t]));
          float* at = sums + 32 * t + 16 * h;
          _mm512_store_ps(at, _mm512_fmadd_ps(g, h == 0 ? s0 : s1, _mm512_load_ps(at)));
        });
      });
      __asm__("" : "+r"(sums));  // an unknown address: else the compiler keeps row sums in registers and spills
      scale += 2 * scale_bytes;
      zero += kPanelRows;
    }
    w = code;
  }
}

BILLFISH_INLINE __m256i RoundToBF16(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
}

void StoreRows(const PanelJob& job, int row, int rows, const float* sums) {
  const __mmask32 live = job.cols == kPanelRows ? ~__mmask32{0} : (__mmask32{1} << job.cols) - 1;
  for (int t = 0; t < rows; ++t) {
    for (int h = 0; h < 2; ++h) {
      const __mmask16 mask = __mmask16(live >> (16 * h));
      __m512 y = _mm512_load_ps(sums + 32 * t + 16 * h);
      const __m512 factor = job.row_factor == nullptr ? _mm512_set1_ps(1.0f) : _mm512_loadu_ps(job.row_factor + 16 * h);
      const __m512 bias = job.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, job.bias + 16 * h);
      y = _mm512_fmadd_ps(y, factor, bias);
      const int64_t at = int64_t{row + t} * job.y_stride + 16 * h;
      if (job.y_bf16) {
        _mm256_mask_storeu_epi16(static_cast<uint16_t*>(job.y) + at, mask, RoundToBF16(y));
      } else {
        _mm512_mask_storeu_ps(static_cast<float*>(job.y) + at, mask, y);
      }
    }
  }
}

using TileFunction = void (*)(const TileArgs&);

template <Codes kCodes, bool kScaled, int... t>
constexpr std::array<TileFunction, kMaxTile + 1> TilesOf(std::integer_sequence<int, t...>) {
  return {nullptr, &Tile<kCodes, kScaled, t + 1>...};
}

template <Codes kCodes, bool kScaled>
void Panel(const PanelJob& job) {
  static constexpr auto kTiles = TilesOf<kCodes, kScaled>(std::make_integer_sequence<int, kMaxTile>{});
  alignas(64) float sums[kMaxTile * kPanelRows];
  const int tiles = (job.rows + kMaxTile - 1) / kMaxTile;
  for (int i = 0; i < tiles; ++i) {
    const int begin = job.rows * i / tiles, end = job.rows * (i + 1) / tiles;
    kTiles[size_t(end - begin)]({&job, reinterpret_cast<const uint8_t*>(job.x) + size_t(begin) * kStagedF32Bytes, sums});
    StoreRows(job, begin, end - begin, sums);
  }
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

}  // namespace billfish::cpu::avx512
