// w4a16_linear_avx512bf16 and its siblings w8a16, w16a16: one panel of 32 output rows times bf16 activations, exact products.
//
//   y[t, n] = factor[n] * sum_chunk scale[n, chunk] * sum_k code[n, k] x[t, k] + bias[n]
//
// E2M1 with power-of-two or E5M3 scales: scale and code fit a bf16 operand exactly (codes.h), so the sum over k never leaves its
// register. Other scales do not fit 8 bits of mantissa; there the code alone is the operand and the chunk's sum is multiplied in fp32,
// one FMA for every chunk_k / 2 dots: at most 16/17 of the peak for groups of 32, 64/65 for groups of 128.
//
//   pipeline   up to 12 rows: one tile streams the panel (tile.h), then factor, bias, round, store
//              more: tiles of up to 12, four slabs at a time; every tile expands the codes anew. That costs a tile of eight 1 % of its
//              dots; leaving operands for the others costs a first tile 8 % and the others more calls for fewer dots.
//              many rows and codes that take many operations (zero points, FP8): slab by slab, tiles of eight; the first tile keeps its
//              operands in scratch (L1) for the others, and every tile fetches the activations of the next
//   limits     1 row: the stream of codes, 17 to 20 bytes per 32 weights.   8 rows and more: two dots per cycle.
//
// vdpbf16ps treats subnormal operands as zero: activations below 2^-126 in magnitude contribute nothing.
#include <algorithm>

#include "cpu/kernels/avx512bf16/kernels.h"
#include "cpu/kernels/avx512bf16/store_rows.h"
#include "cpu/kernels/avx512bf16/tile.h"

namespace billfish::cpu::avx512bf16 {
namespace {

constexpr int kStreamedSlabs = 4;  // 17 to 20 KiB of codes stay near for the next tile
static_assert(kSlabK * kPanelRows * 2 <= int{kExpandedBytes});

/// Rows that one tile takes alone.
template <class C>
constexpr int kLoneTile = C::kManyRegisters ? kMaxTile - 1 : kMaxTile;

/// Most rows whose tiles all expand the codes.
template <class C>
constexpr int kExpandingRows = C::kManyRegisters ? 16 : kMaxPanelRows;

/// Rows of the next of several tiles: as few tiles as possible, about equal, or eights and a rest where the first one keeps its operands.
/// What remains is never so little that too few dots are in flight. Where chunk sums are multiplied, more than ten rows leave row sums in
/// memory.
template <class C, bool kGroupScale>
constexpr int NextTile(int left, bool keeps) {
  if (left <= kLoneTile<C>) return left;
  if (left == 14) return 9;
  constexpr int kMost = kGroupScale ? 10 : kLoneTile<C>;
  const int tiles = (left + kMost - 1) / kMost;
  return keeps ? 8 : std::max(8, (left + tiles - 1) / tiles);
}

TileArgs ArgsOf(const PanelJob& job) {
  const PanelLayout& layout = *job.layout;
  TileArgs args{};
  args.w = reinterpret_cast<const uint8_t*>(job.panel);
  args.slabs = layout.slabs();
  args.chunks = layout.slab_chunks;
  args.chunks_last = layout.chunks_in_slab(args.slabs - 1);
  args.steps = int(layout.steps());
  args.steps_last = args.steps - layout.tail_padding() / 8;
  args.scales = layout.scales;
  args.zeros = layout.codes == Codes::kInt4Zero;
  args.x_slab_stride = job.slab_stride;
  return args;
}

/// At most one tile: all slabs in one go.
void RunTile(const PanelJob& job, TileFunction tile) {
  alignas(64) float sums[kMaxTile * kPanelRows];
  TileArgs args = ArgsOf(job);
  args.x = reinterpret_cast<const uint8_t*>(job.x);
  args.c = sums;
  PrefetchRows(job, 0, job.rows);
  tile(args);
  StoreRows(job, 0, job.rows, sums);
}

/// Several tiles: kSlabs slabs at a time, all tiles.
template <class C, bool kGroupScale, Source kFirst, Source kOther, int kSlabs>
void RunTiles(const PanelJob& job) {
  const PanelLayout& layout = *job.layout;
  const uint8_t* const x = reinterpret_cast<const uint8_t*>(job.x);
  float* const sums = reinterpret_cast<float*>(job.scratch + kExpandedBytes);
  TileArgs args = ArgsOf(job);
  args.operands = reinterpret_cast<uint8_t*>(job.scratch);
  const int slabs = layout.slabs();
  constexpr bool kKeeps = kFirst == Source::kStreamAndKeep;  // and has no registers for more than eight rows
  for (int first = 0; first < slabs; first += kSlabs) {
    const bool last = first + kSlabs >= slabs;
    args.slabs = std::min(kSlabs, slabs - first);
    args.chunks_last = layout.chunks_in_slab(first + args.slabs - 1);
    args.steps_last = args.steps - (last ? layout.tail_padding() / 8 : 0);
    args.accumulate = first > 0;
    // The next panel starts over with the first slab. Past the last one lies what another thread writes, and fetching that steals it.
    const uint8_t* const next_x = last ? x : x + size_t(first + kSlabs) * job.slab_stride;
    for (int begin = 0; begin < job.rows;) {
      const int rows = NextTile<C, kGroupScale>(job.rows - begin, kKeeps);
      args.x = x + size_t(first) * job.slab_stride + size_t(begin) * kStagedBF16Bytes;
      args.c = sums + begin * kPanelRows;
      args.ahead = begin + rows < job.rows ? args.x + size_t(rows) * kStagedBF16Bytes : next_x;
      if (last) PrefetchRows(job, begin, rows);
      // NOLINTNEXTLINE(bugprone-branch-clone): the same where both stream
      (begin == 0 ? kTiles<C, kGroupScale, kMaxTile, kFirst> : kTiles<C, kGroupScale, kMaxTile, kOther>)[size_t(rows)](args);
      if (last) StoreRows(job, begin, rows, args.c);
      begin += rows;
    }
    args.w += size_t(args.slabs) * layout.slab_bytes(layout.slab_chunks);  // past the end after the last round, and not read then
  }
}

template <class C, bool kGroupScale>
void Panel(const PanelJob& job) {
  if (job.rows <= kLoneTile<C>) return RunTile(job, kTiles<C, kGroupScale, kMaxTile>[size_t(job.rows)]);
  if (C::kReady) return RunTiles<C, kGroupScale, Source::kStream, Source::kStream, 1>(job);
  if (job.rows <= kExpandingRows<C>) return RunTiles<C, kGroupScale, Source::kStream, Source::kStream, kStreamedSlabs>(job);
  if constexpr (kExpandingRows<C> < kMaxPanelRows) RunTiles<C, kGroupScale, Source::kStreamAndKeep, Source::kKept, 1>(job);
}

/// With few rows an operand is used too seldom to pay for folding its scale: multiplying the chunk sums is cheaper up to kFolded - 1 rows.
template <class Folding, int kFolded>
void PanelE2M1(const PanelJob& job) {
  if (job.rows < kFolded) return RunTile(job, kTiles<E2M1Plain, true, kFolded - 1>[size_t(job.rows)]);
  Panel<Folding, false>(job);
}

}  // namespace

PanelFunction LinearPanel(const PanelLayout& layout) {
  const bool scaled = layout.scales != Scales::kNone;
  switch (layout.codes) {
    case Codes::kInt4:
      return scaled ? &Panel<Int4Symmetric, true> : &Panel<Int4Symmetric, false>;
    case Codes::kInt4Zero:
      return scaled ? &Panel<Int4WithZero, true> : &Panel<Int4WithZero, false>;
    case Codes::kE2M1:
      if (layout.scales == Scales::kExponent) return &PanelE2M1<E2M1Exponent, 4>;
      if (layout.scales == Scales::kE5M3) return &PanelE2M1<E2M1TimesE5M3, 5>;
      return scaled ? &Panel<E2M1Plain, true> : &Panel<E2M1Plain, false>;
    case Codes::kE4M3:
      return scaled ? &Panel<E4M3Codes, true> : &Panel<E4M3Codes, false>;
    case Codes::kBF16:
      return scaled ? nullptr : &Panel<Bf16Codes, false>;
    case Codes::kF16:
    case Codes::kF32:
      return nullptr;
  }
  return nullptr;
}

}  // namespace billfish::cpu::avx512bf16
