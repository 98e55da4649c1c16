// w4a8_linear_avx512vnni: 4-bit weights times activations rounded to int8 with one scale per 32 k.
//
//   y[t, n] = factor[n] * sum_b a[t, b] * sum_{chunks c of b} scale[n, c] * sum_{k in c} code[n, k] q[t, k] + bias[n]     b = 32 k
//
// Staged rows hold q = round(x / a) and a for each 32 k (staged_int8.h).
//
// vpdpbusd adds four products u8 x s8 to an int32 lane (lane = output row). Codes become unsigned by an offset:
//   E2M1   u = 2 v + 12 in 0..24, offset 12, and a/2 is staged instead of a       (vpermb; a table repeated 4 times ignores bits 5:4)
//   int4   u = q, offset 8                                                        (mask)
//   int4z  u = q - zero + 16 in 0..31, offset 16                                  (mask, add)
// and sum (u - offset) q = sum u q - offset * sum q. The last term is known when staging, so the int32 sums simply start at
// -offset * sum q, a broadcast from memory that replaces clearing the register.
//
// Scaling, per 32 k and per 8 dots of each (row, half):
//   power of two   vcvtdq2ps, then vpsubusw takes d << 23 off the fp32 bits: an exact multiplication by 2^-d away from the multiply
//                  pipes, and zero saturates to zero (the low words subtract 0); then one FMA with a
//   others         vcvtdq2ps, a multiplication, one FMA;  chunks of 16: one multiplication, two FMAs for the pair; chunks of 64 and more:
//                  vcvtdq2ps and one FMA with a, and per chunk one FMA with the scale into row sums that stay in memory
//
//   pipeline     up to 6 rows stream the packed panel. With more, tiles of up to 6 take some slabs in turn: of int4 all expand the codes;
//                otherwise the first tile also leaves its bytes in scratch (16 KiB in L1) and the others multiply those. The sums
//                [rows, 32] stay in scratch between slabs.
//   limits       two vpdpbusd per cycle; 8/9 of that for power-of-two scales, 8/10 for others, 8/11 for chunks of 16, 16/19 for 64 and
//                32/37 for 128
#include <algorithm>
#include <array>

#include "core/rounding.h"
#include "cpu/kernels/avx512bf16/codes.h"
#include "cpu/kernels/avx512bf16/kernels.h"
#include "cpu/kernels/avx512bf16/source.h"
#include "cpu/kernels/avx512bf16/staged_int8.h"
#include "cpu/kernels/avx512bf16/store_rows.h"
#include "cpu/kernels/avx512bf16/unrolled.h"

namespace billfish::cpu::avx512bf16 {
namespace {

constexpr int kPrefetchBytes = 16384;  // as in tile.h
constexpr int kMaxTile = 6;            // 12 int32 sums, 12 fp32 sums, 2 operands, a broadcast, 2 scales, table and spare
constexpr int kMaxPairsTile = 5;       // chunks of 16 need more registers
constexpr size_t kSlabBytes = size_t{kSlabK} * kPanelRows;
constexpr int kLinesAhead = 5;  // two tiles share 272 bytes a block, scales included: no line may be left for the first tile to wait for

/// Whether every tile expands the codes: a shift and an AND cost the dots nothing, while a lookup or a store takes from them, and zero
/// points take registers.
template <Codes kCodes>
constexpr bool kAllExpand = kCodes == Codes::kInt4;

/// Slabs that several tiles take in turn: 16 to 18 KiB of bytes or of codes, a third of L1.
template <Codes kCodes>
constexpr int kSlabsAtOnce = kAllExpand<kCodes> ? 4 : 2;

struct alignas(64) ByteTable {
  uint8_t entry[64];
};
constexpr ByteTable E2M1Doubled() {
  constexpr uint8_t kValues[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
  ByteTable table{};
  for (int i = 0; i < 64; ++i) table.entry[i] = kValues[i % 16];
  return table;
}
constexpr ByteTable kE2M1Doubled = E2M1Doubled();

enum class Scaling { kNone, kExponent, kMultiply, kPairs, kLongChunks };

/// One slab, packed: scales, then the others at these bytes. Found once a panel, as it takes divisions.
struct SlabShape {
  int chunks, blocks;
  size_t zeros_at, codes_at, bytes;
};

SlabShape ShapeOf(const PanelLayout& layout, int slab) {
  const int chunks = layout.chunks_in_slab(slab), padding = slab + 1 == layout.slabs() ? layout.tail_padding() : 0;
  const size_t zeros_at = layout.scale_part(chunks), codes_at = zeros_at + layout.zero_part(chunks);
  return {chunks, DivideUp(chunks * layout.chunk_k - padding, kBlock), zeros_at, codes_at, codes_at + layout.code_part(chunks)};
}

struct TileArgs {
  const PanelLayout* layout;
  int slabs;
  SlabShape shape, shape_last;  ///< of the slabs, and of the last one
  const uint8_t* w;             ///< the first slab, packed
  uint8_t* bytes;               ///< kept by one tile for others: a slab every kSlabBytes, expanded [unit][low, high nibbles][half][64]
  const uint8_t* x;             ///< first row of the tile in the first slab
  size_t slab_stride;           ///< of x
  float* sums;                  ///< [T, 32], added to
  // Among several tiles:
  const uint8_t* ahead;        ///< activations of the tile that comes next, fetched into L1 meanwhile
  const uint8_t* codes_ahead;  ///< this tile's share of the next slabs, fetched a little each block and past L2, where the activations are
  size_t codes_ahead_step;     ///< bytes, at most kLinesAhead lines
};

/// What expansion needs: the lookup table, and 16 - zero of both halves.
struct Decoder {
  __m512i table = Load(&kE2M1Doubled);
  __m512i offset[2] = {};
};

/// The low (kHigh = 0) or high nibbles of one half unit as unsigned bytes.
template <Codes kCodes, int kHigh>
BILLFISH_INLINE __m512i Bytes(__m512i raw, const Decoder& decoder, int half) {
  const __m512i shifted = kHigh ? _mm512_srli_epi16(raw, 4) : raw;
  if constexpr (kCodes == Codes::kE2M1) return _mm512_permutexvar_epi8(shifted, decoder.table);
  const __m512i q = _mm512_and_si512(shifted, _mm512_set1_epi8(15));
  return kCodes == Codes::kInt4Zero ? _mm512_add_epi8(q, decoder.offset[half]) : q;
}

template <Codes kCodes>
BILLFISH_INLINE void ReadZeros(Decoder& decoder, const uint8_t* zeros) {
  if constexpr (kCodes == Codes::kInt4Zero) {
    Unrolled<2>([&]<int h>() __attribute__((always_inline)) {
      const __m512i z = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros + 16 * h)));
      decoder.offset[h] = _mm512_sub_epi8(_mm512_set1_epi8(16), _mm512_mullo_epi32(z, _mm512_set1_epi32(0x01010101)));
    });
  }
}

/// The weight scale of 16 rows for one block, applied to int32 sums.
template <Scaling kScaling>
struct BlockScale {
  __m512i value;
  BILLFISH_INLINE BlockScale(Scales scales, const uint8_t* p) {
    if constexpr (kScaling == Scaling::kExponent) {
      value = _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 23);
    } else if constexpr (kScaling == Scaling::kMultiply) {
      value = _mm512_castps_si512(ScaleVector(scales, p));
    }
  }
  BILLFISH_INLINE __m512 Apply(__m512i sum) const {
    const __m512 f = _mm512_cvtepi32_ps(sum);
    if constexpr (kScaling == Scaling::kExponent) return _mm512_castsi512_ps(_mm512_subs_epu16(_mm512_castps_si512(f), value));
    if constexpr (kScaling == Scaling::kMultiply) return _mm512_mul_ps(f, _mm512_castsi512_ps(value));
    return f;
  }
};

/// T rows times consecutive slabs.
template <Codes kCodes, Scaling kScaling, Source kSource, int T>
void Tile(const TileArgs& a) {
  constexpr int kChunksPerBlock = kScaling == Scaling::kPairs ? 2 : 1;
  constexpr int kUnits = 4 / kChunksPerBlock;
  constexpr int kAheadBytes = int{kStagedInt8Bytes} * kBlock / kSlabK * T;
  Decoder decoder;
  const PanelLayout& layout = *a.layout;
  const Scales kind = layout.scales;
  const int blocks_per_chunk = kScaling == Scaling::kPairs ? 1 : layout.chunk_k / kBlock;
  const size_t scale_bytes = size_t(ScaleBytesOf(kind)) * 16;
  float* sums = a.sums;
  __m512 sum[2][T];  // row sums; for long chunks those of the chunk
  Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
    Unrolled<2>([&]<int h>() __attribute__((always_inline)) {
      sum[h][t] = kScaling == Scaling::kLongChunks ? _mm512_setzero_ps() : _mm512_load_ps(sums + 32 * t + 16 * h);
    });
  });
  const uint8_t *w = a.w, *slab_x = a.x, *slab_ahead = a.ahead, *codes_ahead = a.codes_ahead;
  uint8_t* slab_bytes = a.bytes;
  for (int slab = 0; slab < a.slabs; ++slab) {
    const SlabShape& shape = slab + 1 == a.slabs ? a.shape_last : a.shape;
    const int blocks = shape.blocks;
    const uint8_t *scale = w, *zero = w + shape.zeros_at, *code = w + shape.codes_at;
    if constexpr (kSource == Source::kStream && T <= 4) {
      for (const uint8_t* p = w; p < code; p += kLine) _mm_prefetch(reinterpret_cast<const char*>(p + kPrefetchBytes), _MM_HINT_T0);
    }
    const uint8_t *x = slab_x, *x_scale = x + kScalesAt, *x_start = x + kStartsAt, *ahead = slab_ahead;
    uint8_t* bytes = slab_bytes;
    for (int block = 0, in_chunk = 0; block < blocks; ++block) {
      if constexpr (kSource != Source::kKept && kScaling != Scaling::kPairs) ReadZeros<kCodes>(decoder, zero);
      if constexpr (kSource != Source::kStream) {
        Unrolled<(kAheadBytes + int{kLine} - 1) / int{kLine}>([&]<int i>() __attribute__((always_inline)) {
          _mm_prefetch(reinterpret_cast<const char*>(ahead + i * kLine), _MM_HINT_T0);
        });
        ahead += kAheadBytes;
        Unrolled<kLinesAhead>([&]<int i>() __attribute__((always_inline)) {
          _mm_prefetch(reinterpret_cast<const char*>(codes_ahead + i * kLine), _MM_HINT_NTA);
        });
        codes_ahead += a.codes_ahead_step;
      }
      __m512 f[2][T];
      const int live_chunks = kScaling == Scaling::kPairs ? std::min(2, shape.chunks - 2 * block) : 1;
      Unrolled<kChunksPerBlock>([&]<int chunk>() __attribute__((always_inline)) {
        if (chunk > 0 && live_chunks < 2) return;  // an odd number of chunks of 16 ends inside a block
        __m512i g[2][T];
        Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
          g[0][t] = g[1][t] = _mm512_set1_epi32(*reinterpret_cast<const int*>(x_start + t * int64_t{kStagedInt8Bytes} + 4 * chunk));
        });
        Unrolled<kUnits>([&]<int unit>() __attribute__((always_inline)) {
          constexpr int kUnit = chunk * kUnits + unit;
          const uint8_t* at = code + kUnit * 2 * kLine;
          uint8_t* kept = bytes + kUnit * 4 * kLine;
          __m512i raw[2] = {};
          if constexpr (kSource == Source::kStream) {
            _mm_prefetch(reinterpret_cast<const char*>(at + kPrefetchBytes), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(at + kPrefetchBytes + kLine), _MM_HINT_T0);
          }
          if constexpr (kSource != Source::kKept) {
            raw[0] = Load(at), raw[1] = Load(at + kLine);
          }
          Unrolled<2>([&]<int high>() __attribute__((always_inline)) {
            const __m512i w0 = kSource == Source::kKept ? Load(kept + 2 * high * kLine) : Bytes<kCodes, high>(raw[0], decoder, 0);
            const __m512i w1 = kSource == Source::kKept ? Load(kept + (2 * high + 1) * kLine) : Bytes<kCodes, high>(raw[1], decoder, 1);
            if constexpr (kSource == Source::kStreamAndKeep) {
              _mm512_store_si512(kept + 2 * high * kLine, w0);
              _mm512_store_si512(kept + (2 * high + 1) * kLine, w1);
            }
            Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
              const __m512i xb = _mm512_set1_epi32(*reinterpret_cast<const int*>(x + t * int64_t{kStagedInt8Bytes} + kUnit * 8 + high * 4));
              g[0][t] = _mm512_dpbusd_epi32(g[0][t], w0, xb);
              g[1][t] = _mm512_dpbusd_epi32(g[1][t], w1, xb);
            });
          });
        });
        if constexpr (kScaling == Scaling::kPairs) {
          Unrolled<2>([&]<int h>() __attribute__((always_inline)) {
            const __m512 s = ScaleVector(kind, scale + (2 * chunk + h) * scale_bytes);
            Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
              const __m512 v = _mm512_cvtepi32_ps(g[h][t]);
              f[h][t] = chunk == 0 ? _mm512_mul_ps(v, s) : _mm512_fmadd_ps(v, s, f[h][t]);
            });
          });
        } else {
          const BlockScale<kScaling> scales[2] = {{kind, scale}, {kind, scale + scale_bytes}};
          Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
            const __m512 as = _mm512_set1_ps(*reinterpret_cast<const float*>(x_scale + t * int64_t{kStagedInt8Bytes}));
            Unrolled<2>([&]<int h>()
                            __attribute__((always_inline)) { sum[h][t] = _mm512_fmadd_ps(scales[h].Apply(g[h][t]), as, sum[h][t]); });
          });
        }
      });
      if constexpr (kScaling == Scaling::kPairs) {
        Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
          const __m512 as = _mm512_set1_ps(*reinterpret_cast<const float*>(x_scale + t * int64_t{kStagedInt8Bytes}));
          Unrolled<2>([&]<int h>() __attribute__((always_inline)) { sum[h][t] = _mm512_fmadd_ps(f[h][t], as, sum[h][t]); });
        });
      }
      code += size_t(live_chunks) * kUnits * 2 * kLine;
      bytes += size_t(live_chunks) * kUnits * 4 * kLine;
      x += kBlock;
      x_scale += 4;
      x_start += 4 * kChunksPerBlock;
      if (++in_chunk == blocks_per_chunk || block + 1 == blocks) {
        in_chunk = 0;
        if constexpr (kScaling == Scaling::kLongChunks) {
          Unrolled<2>([&]<int h>() __attribute__((always_inline)) {
            const __m512 s = ScaleVector(kind, scale + h * scale_bytes);
            Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
              float* const at = sums + 32 * t + 16 * h;
              _mm512_store_ps(at, _mm512_fmadd_ps(sum[h][t], s, _mm512_load_ps(at)));
              sum[h][t] = _mm512_setzero_ps();
            });
          });
          __asm__("" : "+r"(sums));  // an unknown address: else the compiler keeps row sums in registers and spills
        }
        scale += size_t{2} * kChunksPerBlock * scale_bytes;
        zero += kPanelRows;
      }
    }
    w = code;
    slab_x += a.slab_stride;
    slab_ahead += a.slab_stride;
    slab_bytes += kSlabBytes;
  }
  if constexpr (kScaling != Scaling::kLongChunks) {
    Unrolled<T>([&]<int t>() __attribute__((always_inline)) {
      Unrolled<2>([&]<int h>() __attribute__((always_inline)) { _mm512_store_ps(sums + 32 * t + 16 * h, sum[h][t]); });
    });
  }
}

using TileFunction = void (*)(const TileArgs&);

template <Codes kCodes, Scaling kScaling, Source kSource, int T>
constexpr TileFunction TileOrNull() {
  if constexpr (kSource != Source::kStream && T < 3)
    return nullptr;  // seven rows and more are cut into tiles of at least three
  else
    return &Tile<kCodes, kScaling, kSource, T>;
}
template <Codes kCodes, Scaling kScaling, Source kSource, int... t>
constexpr std::array<TileFunction, sizeof...(t) + 1> TilesOf(std::integer_sequence<int, t...>) {
  return {nullptr, TileOrNull<kCodes, kScaling, kSource, t + 1>()...};
}
/// [T] for T = 1 .. kMaxTile.
template <Codes kCodes, Scaling kScaling, Source kSource>
constexpr auto kTiles = TilesOf<kCodes, kScaling, kSource>(std::make_integer_sequence<int, kMaxTile>{});

/// All rows and slabs as one tile.
TileArgs ArgsOf(const PanelJob& job) {
  TileArgs args{};
  args.layout = job.layout;
  args.slabs = job.layout->slabs();
  args.shape = ShapeOf(*job.layout, 0);
  args.shape_last = ShapeOf(*job.layout, args.slabs - 1);
  args.w = reinterpret_cast<const uint8_t*>(job.panel);
  args.bytes = reinterpret_cast<uint8_t*>(job.scratch);
  args.x = args.ahead = reinterpret_cast<const uint8_t*>(job.x);
  args.slab_stride = job.slab_stride;
  args.sums = reinterpret_cast<float*>(job.scratch + kExpandedBytes);
  return args;
}

/// Several tiles: kSlabsAtOnce slabs at a time, all tiles. A division here would hold up the tile that waits for its addresses.
template <Codes kCodes, Scaling kScaling>
void RunTiles(const PanelJob& job) {
  constexpr Source kFirst = kAllExpand<kCodes> ? Source::kStreamAgain : Source::kStreamAndKeep;
  constexpr Source kOther = kAllExpand<kCodes> ? Source::kStreamAgain : Source::kKept;
  constexpr int kTile = kScaling == Scaling::kPairs ? kMaxPairsTile : kMaxTile, kSlabs = kSlabsAtOnce<kCodes>;
  TileArgs args = ArgsOf(job);
  const SlabShape shape_last = args.shape_last;
  const uint8_t* const first_x = args.x;
  float* const sums = args.sums;
  const int slabs = args.slabs, tiles = DivideUp(job.rows, kTile), least = job.rows / tiles, larger = job.rows % tiles;
  const size_t full_share = size_t{kSlabs} * args.shape.bytes / size_t(tiles);
  const uint8_t* x = first_x;
  for (int first = 0; first < slabs; first += kSlabs) {
    args.slabs = std::min(kSlabs, slabs - first);
    const bool last = first + args.slabs == slabs;
    args.shape_last = last ? shape_last : args.shape;
    const size_t bytes = size_t(args.slabs - 1) * args.shape.bytes + args.shape_last.bytes;
    const size_t share = last ? bytes / size_t(tiles) : full_share;
    args.codes_ahead_step = std::min<size_t>(share / size_t(kSlabs * kSlabK / kBlock) + 1, kLinesAhead * kLine);
    // The next panel starts over with the first slab. Past the last one lies what another thread writes, and fetching that steals it.
    const uint8_t* const next_x = last ? first_x : x + size_t(args.slabs) * job.slab_stride;
    for (int i = 0, begin = 0, end = 0; i < tiles; ++i, begin = end) {
      end += least + (i < larger);
      args.x = x + size_t(begin) * kStagedInt8Bytes;
      args.sums = sums + begin * kPanelRows;
      args.ahead = i + 1 < tiles ? x + size_t(end) * kStagedInt8Bytes : next_x;
      args.codes_ahead = args.w + bytes + size_t(i) * share;
      if (last) PrefetchRows(job, begin, end - begin);
      // NOLINTNEXTLINE(bugprone-branch-clone): the same where all expand
      (i == 0 ? kTiles<kCodes, kScaling, kFirst> : kTiles<kCodes, kScaling, kOther>)[size_t(end - begin)](args);
      if (last) StoreRows(job, begin, end - begin, args.sums);
    }
    args.w += bytes;
    x = next_x;
  }
}

template <Codes kCodes, Scaling kScaling>
void Panel(const PanelJob& job) {
  const TileArgs args = ArgsOf(job);
  std::fill(args.sums, args.sums + job.rows * kPanelRows, 0.0f);
  if (job.rows > kMaxTile) return RunTiles<kCodes, kScaling>(job);
  PrefetchRows(job, 0, job.rows);
  kTiles<kCodes, kScaling, Source::kStream>[size_t(job.rows)](args);
  StoreRows(job, 0, job.rows, args.sums);
}

}  // namespace

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
      if (layout.chunk_k > kBlock) return &Panel<Codes::kInt4, Scaling::kLongChunks>;
      return pairs ? &Panel<Codes::kInt4, Scaling::kPairs> : &Panel<Codes::kInt4, Scaling::kMultiply>;
    case Codes::kInt4Zero:
      if (pairs) return nullptr;
      if (scaled && layout.chunk_k > kBlock) return &Panel<Codes::kInt4Zero, Scaling::kLongChunks>;
      return scaled ? &Panel<Codes::kInt4Zero, Scaling::kMultiply> : &Panel<Codes::kInt4Zero, Scaling::kNone>;
    default:
      return nullptr;
  }
}

}  // namespace billfish::cpu::avx512bf16
