// One register tile: c[t, 0..31] (+)= W[0..31, k] . x[t, k] over consecutive slabs, for T rows of activations.
//
// Lane = output row, so no horizontal sums exist: a zmm holds 16 rows x (k, k + 1), the activation pair (k, k + 1) is one 32-bit
// broadcast straight from memory (load port only), and vdpbf16ps adds w[k] x[k] + w[k + 1] x[k + 1] to 16 fp32 sums.
//
//   registers    sums [2 halves][T]    operands [2 or 4]    tables and chunk state    broadcast           2 T + about 8 <= 32
//   step         8 k: one raw load per half, then 4 x (expand 2 operands, T broadcasts, 2 T dots)
//
// Codes are expanded in registers as they stream by. Where that takes many operations, the first of several tiles also leaves its operands
// in scratch (16 KiB, L1), and the others read those.
//
// The dots own two of the four vector pipes; shifts and logic go to the other two, lookups take a little of the dots' (codes.h), so
// expansion mostly hides behind the dots from T = 4 on, and below that the stream of codes is the limit. A dot takes 6 cycles and two start
// per cycle, so 12 sums must be in flight: T <= 2 splits k over 4 sets of sums and T <= 6 over 2, where the registers allow it.
//
// Operands made right before their dots hold these up, by a third of a slot each. Two more registers let them be made among the dots of the
// pair before (T = 8: .96 -> .99 of the dots), each before a row's first dot: between the two of a row it parts dots that start together.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "cpu/kernels/avx512bf16/codes.h"
#include "cpu/kernels/avx512bf16/source.h"
#include "cpu/kernels/avx512bf16/unrolled.h"
#include "cpu/panel_job.h"

namespace billfish::cpu {
namespace {

/// The hardware prefetcher stops at 4 KiB boundaries and starts anew in every panel; this bridges both.
/// NTA: a weight is larger than any cache; its lines, once used, need not be written to the victim cache.
inline constexpr int kPrefetchBytes = 8192;
/// With several tiles, about a slab: the others push lines fetched earlier out of L1 before their turn.
inline constexpr int kKeepingPrefetchBytes = 4352;

/// Registers that group sums and row sums may take: the others hold operands, a broadcast, tables and scales.
template <class Codes>
inline constexpr int kSumRegisters = Codes::kManyRegisters ? 20 : 26;
/// The same beside operands made a pair ahead.
inline constexpr int kSumRegistersAhead = 24;

struct TileArgs {
  const uint8_t* w;  ///< first slab
  int slabs;
  int chunks, chunks_last;  ///< per slab, and in the last one
  int steps;                ///< of 8 k, per chunk
  int steps_last;           ///< in the last chunk of the last slab, which may be padding for the rest
  Scales scales;
  bool zeros;
  const uint8_t* x;  ///< staged bf16, first row of the tile
  size_t x_slab_stride;
  float* c;              ///< [T, 32]
  bool accumulate;       ///< add to c instead of overwriting
  const uint8_t* ahead;  ///< activations of the tile that comes next, fetched into L1 meanwhile unless Source::kStream
  uint8_t* operands;     ///< expanded codes of `slabs` slabs: [k / 2][half][64 bytes]; unused by Source::kStream
};

/// Parts of one slab (panel_layout.h).
struct SlabParts {
  const uint8_t *scale, *zero, *code;
  int chunks;
};
BILLFISH_INLINE SlabParts PartsOf(const TileArgs& a, int slab, const uint8_t* w) {
  const int chunks = slab + 1 == a.slabs ? a.chunks_last : a.chunks;
  const uint8_t* const zero = w + PanelLayout::Padded(size_t(chunks) * kPanelRows * size_t(ScaleBytesOf(a.scales)));
  return {w, zero, zero + (a.zeros ? PanelLayout::Padded(size_t(chunks) * kPanelRows) : 0), chunks};
}

BILLFISH_INLINE __m512 Dot(__m512 sum, __m512i w, __m512i x) { return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x); }

template <class Codes, bool kGroupScale, Source kSource, int T>
void Tile(const TileArgs& a) {
  constexpr int kWays = T <= 2 ? (kGroupScale && T == 1 ? 2 : 4) : T <= (Codes::kManyRegisters ? 5 : 6) ? 2 : 1;
  constexpr bool kExpands = kSource != Source::kKept;
  constexpr int kSums = 2 * kWays * T;
  // With 24 sums, operands made ahead leave nothing for row sums, nor for what joining two sets of them takes.
  constexpr bool kAhead =
      kExpands && !Codes::kReady && !Codes::kManyRegisters && kSums + (kGroupScale || kWays > 1 ? 2 : 0) <= kSumRegistersAhead;
  // Group sums and row sums of many rows together would not fit. A row whose sums stay in memory stores them with every group, and many
  // stores at once stall the dots: as many rows as possible keep theirs in registers.
  constexpr int kRowRegisters = (kAhead ? kSumRegistersAhead : kSumRegisters<Codes>)-kSums;
  constexpr int kRegisterRows = !kGroupScale || T <= 4 ? T : std::clamp(kRowRegisters / 2, 0, T);
  constexpr int kMemoryRows = T - kRegisterRows;  // the first ones
  constexpr int kUnits = 4 / Codes::kPairs;
  constexpr size_t kStepBytes = size_t{kUnits} * 2 * kLine;
  const typename Codes::Shared shared;
  const size_t scale_bytes = size_t(ScaleBytesOf(a.scales)) * 16;
  uint8_t* operand = a.operands;
  const uint8_t* ahead = a.ahead;
  float* c = a.c;

  if (kMemoryRows > 0 && !a.accumulate) {
    __m512 zeros = _mm512_setzero_ps();
    __asm__("" : "+v"(zeros));  // else the compiler makes it a memset, which takes longer to begin than these stores to end
    Unrolled<2 * kMemoryRows>([&]<int i>() __attribute__((always_inline)) { _mm512_storeu_ps(c + 16 * i, zeros); });
  }
  __m512 sum[2][T];  // of the rows from kMemoryRows on
  Unrolled<kRegisterRows>([&]<int i>() __attribute__((always_inline)) {
    constexpr int t = kMemoryRows + i;
    sum[0][t] = a.accumulate ? _mm512_loadu_ps(c + 32 * t) : _mm512_setzero_ps();
    sum[1][t] = a.accumulate ? _mm512_loadu_ps(c + 32 * t + 16) : _mm512_setzero_ps();
  });
  __m512 way[kWays][2][T];
  auto clear_ways = [&]() __attribute__((always_inline)) {
    Unrolled<kWays>([&]<int i>() __attribute__((always_inline)) {
      Unrolled<T>([&]<int t>() __attribute__((always_inline)) { way[i][0][t] = way[i][1][t] = _mm512_setzero_ps(); });
    });
  };
  auto join = [&]<int h, int t>() __attribute__((always_inline)) {
    if constexpr (kWays == 4)
      return _mm512_add_ps(_mm512_add_ps(way[0][h][t], way[1][h][t]), _mm512_add_ps(way[2][h][t], way[3][h][t]));
    else if constexpr (kWays == 2)
      return _mm512_add_ps(way[0][h][t], way[1][h][t]);
    else
      return way[0][h][t];
  };
  if constexpr (!kGroupScale) {
    clear_ways();
    if constexpr (kWays == 1) {
      Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
        way[0][0][t] = sum[0][t];
        way[0][1][t] = sum[1][t];
      });
    }
  }

  SlabParts next_slab = PartsOf(a, 0, a.w);
  typename Codes::Chunk state[2] = {};
  const auto begin_chunk = [&](const uint8_t* scale, const uint8_t* zero) __attribute__((always_inline)) {
    state[0] = Codes::Begin(scale, zero);
    state[1] = Codes::Begin(scale + scale_bytes, zero + 16);
  };
  const auto expand = [&]<int h, int kPair>(const uint8_t* step_code) __attribute__((always_inline)) {
    return Codes::template Expand<kPair % Codes::kPairs>(Load(step_code + (kPair / Codes::kPairs * 2 + h) * kLine), shared, state[h]);
  };
  __m512i w0 = {}, w1 = {};
  if constexpr (kAhead) {
    begin_chunk(next_slab.scale, next_slab.zero);
    w0 = expand.template operator()<0, 0>(next_slab.code);
    w1 = expand.template operator()<1, 0>(next_slab.code);
  }

  for (int slab = 0; slab < a.slabs; ++slab) {
    const bool last_slab = slab + 1 == a.slabs;
    auto [scale, zero, code, chunks] = next_slab;
    const size_t steps = size_t(chunks) * size_t(a.steps);
    const uint8_t* x = a.x + size_t(slab) * a.x_slab_stride;
    // Scales, zeros and codes are fetched as one stream, a little more than its share each step: a burst of scale lines costs 2% of
    // bandwidth.
    const uint8_t* fetch = scale + (kSource == Source::kStream ? kPrefetchBytes : kKeepingPrefetchBytes);
    const size_t fetch_step = size_t(code - scale) / steps + kStepBytes;
    // After the last slab comes nothing: operands made from its beginning again are not used.
    if (!last_slab) next_slab = PartsOf(a, slab + 1, code + steps * kStepBytes);
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const bool last_chunk = chunk + 1 == chunks;
      if constexpr (kExpands && !kAhead) begin_chunk(scale, zero);
      if constexpr (kGroupScale) clear_ways();
      const int live_steps = last_slab && last_chunk ? a.steps_last : a.steps;
      for (int step = 0; step < live_steps; ++step) {
        if constexpr (kExpands) {
          Unrolled<2 * kUnits + 1>([&]<int i>() __attribute__((always_inline)) {
            _mm_prefetch(reinterpret_cast<const char*>(fetch + i * kLine), _MM_HINT_NTA);
          });
          fetch += fetch_step;
        }
        if constexpr (kSource != Source::kStream || Codes::kReady) {
          _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
          _mm_prefetch(reinterpret_cast<const char*>(ahead + kLine), _MM_HINT_T0);
          ahead += kStagedBF16Bytes * 8 / kSlabK * T;
        }
        Unrolled<4>([&]<int kPair>() __attribute__((always_inline)) {
          if constexpr (!kExpands) {
            w0 = Load(operand + 2 * kPair * kLine);
            w1 = Load(operand + (2 * kPair + 1) * kLine);
          } else if constexpr (!kAhead) {
            w0 = expand.template operator()<0, kPair>(code);
            w1 = expand.template operator()<1, kPair>(code);
          }
          if constexpr (kSource == Source::kStreamAndKeep) {
            _mm512_store_si512(operand + 2 * kPair * kLine, w0);
            _mm512_store_si512(operand + (2 * kPair + 1) * kLine, w1);
          }
          if constexpr (kPair == 3) {
            code += kStepBytes;
            if (kAhead && step + 1 == live_steps) {
              if (last_chunk) {
                begin_chunk(next_slab.scale, next_slab.zero);
                code = next_slab.code;
              } else {
                begin_chunk(scale + 2 * scale_bytes, zero + kPanelRows);
              }
            }
          }
          __m512i next0 = {}, next1 = {};
          Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
            const __m512i xb = _mm512_set1_epi32(*reinterpret_cast<const int*>(x + t * kStagedBF16Bytes + 4 * kPair));
            if constexpr (kAhead && t == T / 4) next0 = expand.template operator()<0, (kPair + 1) % 4>(code);
            if constexpr (kAhead && t == T * 3 / 4) next1 = expand.template operator()<1, (kPair + 1) % 4>(code);
            way[kPair % kWays][0][t] = Dot(way[kPair % kWays][0][t], w0, xb);
            way[kPair % kWays][1][t] = Dot(way[kPair % kWays][1][t], w1, xb);
          });
          if constexpr (kAhead) w0 = next0, w1 = next1;
        });
        if constexpr (kSource != Source::kStream) operand += 8 * kLine;
        x += 16;
      }
      if constexpr (kGroupScale) {
        const __m512 s0 = ScaleVector(a.scales, scale), s1 = ScaleVector(a.scales, scale + scale_bytes);
        Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
          const __m512 g0 = join.template operator()<0, t>(), g1 = join.template operator()<1, t>();
          if constexpr (t < kMemoryRows) {
            _mm512_storeu_ps(c + 32 * t, _mm512_fmadd_ps(g0, s0, _mm512_loadu_ps(c + 32 * t)));
            _mm512_storeu_ps(c + 32 * t + 16, _mm512_fmadd_ps(g1, s1, _mm512_loadu_ps(c + 32 * t + 16)));
          } else {
            sum[0][t] = _mm512_fmadd_ps(g0, s0, sum[0][t]);
            sum[1][t] = _mm512_fmadd_ps(g1, s1, sum[1][t]);
          }
        });
      }
      if constexpr (kMemoryRows > 0) __asm__("" : "+r"(c));  // an unknown address: else the compiler keeps row sums in registers and spills
      scale += 2 * scale_bytes;
      zero += kPanelRows;
    }
  }
  Unrolled<kRegisterRows>([&]<int i>() __attribute__((always_inline)) {
    constexpr int t = kMemoryRows + i;
    if constexpr (!kGroupScale) {
      const __m512 g0 = join.template operator()<0, t>(), g1 = join.template operator()<1, t>();
      sum[0][t] = kWays == 1 ? g0 : _mm512_add_ps(sum[0][t], g0);
      sum[1][t] = kWays == 1 ? g1 : _mm512_add_ps(sum[1][t], g1);
    }
    _mm512_storeu_ps(c + 32 * t, sum[0][t]);
    _mm512_storeu_ps(c + 32 * t + 16, sum[1][t]);
  });
}

using TileFunction = void (*)(const TileArgs&);
inline constexpr int kMaxTile = 12;

template <class Codes, bool kGroupScale, Source kSource, int T>
constexpr TileFunction TileOrNull() {
  if constexpr (kSource != Source::kStream && T < 4)
    return nullptr;  // several tiles have at least four rows each
  else
    return &Tile<Codes, kGroupScale, kSource, T>;
}
template <class Codes, bool kGroupScale, Source kSource, int... t>
constexpr std::array<TileFunction, sizeof...(t) + 1> TilesOf(std::integer_sequence<int, t...>) {
  return {nullptr, TileOrNull<Codes, kGroupScale, kSource, t + 1>()...};
}
/// [T] for T = 1 .. kMax.
template <class Codes, bool kGroupScale, int kMax, Source kSource = Source::kStream>
inline constexpr auto kTiles = TilesOf<Codes, kGroupScale, kSource>(std::make_integer_sequence<int, kMax>{});

}  // namespace
}  // namespace billfish::cpu
