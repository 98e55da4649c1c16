// The arguments of the routing, sorting, grouped decode and combine kernels, each one struct by value. Shared with device code:
// freestanding.
#pragma once

#include "cuda/activation_kind.h"
#include "cuda/linear_tile_args.h"
#include "cuda/norm_rows_args.h"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// In the order of billfish::RouterRule::Score (include/billfish/moe.h).
enum class RouteScore : int { kSoftmax = 0, kTopKSoftmax = 1, kSigmoid = 2, kSqrtSoftplus = 3 };

/// Groups of experts that the routing kernel compares, one a lane.
inline constexpr int kMostRouteGroups = 32;

struct RouteArgs {
  const float* logits = nullptr;        ///< [T][stride]
  const int32_t* token_ids = nullptr;   ///< [T], hash routing only
  const float* correction = nullptr;    ///< [E] or null
  const int32_t* hash_table = nullptr;  ///< [vocab][top_k] or null
  int32_t* ids = nullptr;               ///< [T][top_k]
  float* weights = nullptr;             ///< [T][top_k]
  int64_t stride = 0;
  int32_t T = 0, E = 0, top_k = 0;
  int32_t n_group = 1, topk_group = 1;
  int32_t vocab = 0;
  RouteScore score = RouteScore::kSoftmax;
  int32_t renormalize = 0;
  float routed_scaling = 1;
};

/// Whether the rule is a softmax over the chosen logits, of no more slots than a warp has lanes.
BILLFISH_HD constexpr bool IsPlainSoftmax(const RouteArgs& args) {
  const bool softmax = args.score == RouteScore::kTopKSoftmax || (args.score == RouteScore::kSoftmax && args.renormalize != 0);
  return softmax && args.top_k <= 32 && args.hash_table == nullptr && args.correction == nullptr && args.n_group == 1;
}

/// Blocks of a cluster of the kernel norm_route at most, its warps, and the outputs of a warp's tensor-core step.
inline constexpr int kNormRouteCluster = 8, kNormRouteWarps = 16, kNormRouteExperts = 16;
/// Columns of the matrix that a warp of it multiplies at a time, the bytes of those of all warps, and how often they come early at most.
inline constexpr int kNormRouteColumns = 32, kNormRoutePieces = kNormRouteWarps * 32 * 32, kNormRouteAhead = 6;

/// Rows of the residual stream to expert ids and weights: their norm, the router's matrix and the routing rule.
struct NormRouteArgs {
  NormRowsArgs norm;                 ///< of all T rows; y is bf16, and not null
  const uint16_t* weight = nullptr;  ///< [E][H] bf16, H a multiple of 32
  const float* bias = nullptr;       ///< [E] or null
  int32_t tile = 0;                  ///< experts that a block takes at a time, at most kNormRouteExperts
  int32_t ahead = 0;                 ///< kNormRoutePieces that come early
  RouteArgs route;                   ///< of which logits is not read
};

/// Slots [T][top_k] sorted by expert, in slot order within an expert. Ids outside [first_expert, first_expert + E) have no place.
struct SortArgs {
  const int32_t* ids = nullptr;  ///< [slots]
  int32_t* offsets = nullptr;    ///< [E + 1] rows of expert e are offsets[e] .. offsets[e + 1]
  int32_t* source = nullptr;     ///< [slots] token of each sorted row
  int32_t* position = nullptr;   ///< [slots] sorted row of each slot, or -1
  TileWork* work = nullptr;      ///< [MostTiles] by falling cost, then expert, then row
  int32_t* work_count = nullptr;
  int32_t slots = 0, top_k = 0, first_expert = 0, E = 0;
  int32_t tile_rows = 1;  ///< most rows of a TileWork
  int32_t cost_rows = 0;  ///< so many rows more make a tile cost more: a quarter of tile_rows at least; 0: all cost the same
  // The sort of many slots, in three launches.
  int32_t* counts = nullptr;  ///< [chunks][E] scratch
  int32_t phase = 0;          ///< 0: ranks within chunks and counts, 1: scan, 2: scatter
};

/// Slots of a chunk: those that one block ranks.
inline constexpr int kSortChunk = 1024;

/// Entries of SortArgs::work at most.
BILLFISH_HD constexpr int64_t MostTiles(int64_t slots, int64_t E, int64_t tile_rows) { return (slots < E ? slots : E) + slots / tile_rows; }

/// Slots that a grouped decode kernel sorts by itself, in every block, instead of reading what the sort wrote.
inline constexpr int kDirectSlots = 32;

/// Tiles that a CTA of the kernel w4a16_grouped_stream has work of at most.
inline constexpr int kMostStreamTiles = 64;

/// Slots that its CTAs sort by themselves at most, and the shared memory that this takes until it is done.
inline constexpr int kBlockSortSlots = 1024;
BILLFISH_HD constexpr int BlockSortBytes(int E, int warps) { return (warps * E + 1) / 2 * 4 + (E + 1) * 4; }

/// Units of its steps, which a warp takes at a time: 4-bit units of 64 columns go in pairs, but for whole panels and where a warp could not
/// copy the scales of both in one go, 16 bytes a lane.
BILLFISH_HD constexpr int GroupedStepUnits(const TileLayout& layout, int row_blocks) {
  const bool one_go = 2 * row_blocks * layout.scale_bytes() / 4 <= 32 * 16;
  return layout.code_bits() == 4 && layout.unit_k() == 64 && row_blocks <= 2 && one_go ? 2 : 1;
}

/// Grouped linear for few rows an expert: out[r] = act(W[e] x[source[r]] + bias[e]) for the sorted rows r of each expert e.
struct GroupedDecodeArgs {
  const uint8_t* weight = nullptr;   ///< units in the layout of the kernel
  const float* row_scale = nullptr;  ///< [E][panels * 64], may be null
  const float* bias = nullptr;       ///< [E][panels * 64] in packed row order, may be null
  const void* x = nullptr;           ///< [rows of x][x_stride], 16-bit
  void* out = nullptr;               ///< [sorted rows][out_stride]: f32, or 16-bit where an activation is fused
  int64_t x_stride = 0, out_stride = 0;
  int64_t expert_bytes = 0;  ///< from one expert's units to the next
  int32_t N = 0, K = 0;      ///< N: columns of out to write
  int32_t panels = 0, units = 0;
  int32_t x_rows = 0, x_row_bytes = 0;  ///< room for rows of x in shared memory, and its bytes a row, an odd multiple of 16
  int32_t phase_steps = 0;              ///< steps along K whose columns of x are in shared memory together
  int32_t round_items = 0;              ///< items whose sums may wait there for the next phase; no limit where there is one phase
  int32_t x_aligned = 1;                ///< rows of x start at multiples of 16 bytes and may be read 16 at a time
  // Work: the list of the sort, or, with ids, few slots that the kernel sorts itself.
  const TileWork* work = nullptr;
  const int32_t* work_count = nullptr;
  const int32_t* source = nullptr;  ///< row of x for a sorted row; null: the sorted row itself
  const int32_t* ids = nullptr;     ///< [slots] or null
  int32_t* position = nullptr;      ///< [slots] with ids: of the stream kernel, sorted row of each slot, to be filled in, or null
  int32_t slots = 0, top_k = 0, first_expert = 0, E = 0;
  int32_t tile_rows = 8;      ///< with ids: most rows of a tile
  int32_t gather = 0;         ///< with ids: x has a row a token (1) or a row a sorted row (0)
  int32_t early_weights = 0;  ///< everything but x was written before the previous kernel began: read weights ahead of its end
  ActivationParameters activation;
  // With ids: whichever warp of the down kernel finishes 16 columns last combines them, y as in CombineArgs.
  int32_t* arrivals =
      nullptr;  ///< [panels * 4] counters, one for 16 columns; with an activation they are cleared, without one they are counted up
  int32_t arrival_count = 0;       ///< to clear
  OutType y_type = OutType::kF32;  ///< of y and addend
  const float* weights = nullptr;  ///< [slots]
  const void* addend = nullptr;
  void* y = nullptr;
  int64_t y_stride = 0;
};

/// Dynamic shared memory of the sort: counts by warp, first rows and first tiles.
BILLFISH_HD constexpr int64_t SortSharedBytes(int64_t E, int64_t warps) { return (warps * E + 3 * (E + 1)) * 4; }

/// y[t] = (addend[t]) + sum over j of weights[t][j] * rows[position[t][j]], in order of j, fp32.
struct CombineArgs {
  const void* rows = nullptr;         ///< [slots][H]
  const int32_t* position = nullptr;  ///< [T][top_k], -1 adds nothing
  const float* weights = nullptr;     ///< [T][top_k]; null: all 1
  const void* addend = nullptr;       ///< [T][y_stride] of y's type, or null
  void* y = nullptr;                  ///< [T][y_stride]
  int64_t y_stride = 0;
  int32_t T = 0, H = 0, top_k = 0;
};

}  // namespace billfish::cuda
