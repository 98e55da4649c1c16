// The tiles of a tile kernel: their size by its macros, and which of them each block computes. A tile is args.tile_panels panels, at most
// kOut packed rows, x kTokens rows of x.
//
// Macros: BF_M16, BF_N8 blocks of 16 packed rows and of 8 tokens that a warp sums; BF_WARPS_M, BF_WARPS_N; BF_STAGES stages of
// BF_UNITS units of K in shared memory, with wgmma at most; BF_GROUPED; BF_ACTIVATION (-1 none).
#pragma once

#include "cuda/kernels/weight.cuh"
#include "cuda/linear_tile_args.h"

namespace billfish::cuda {

inline constexpr int kM16 = BF_M16, kN8 = BF_N8, kWarpsM = BF_WARPS_M, kWarpsN = BF_WARPS_N, kStages = BF_STAGES;
inline constexpr int kThreads = 32 * kWarpsM * kWarpsN;
inline constexpr int kOut = 16 * kM16 * kWarpsM, kTokens = 8 * kN8 * kWarpsN;
inline constexpr int kTilePanels = kOut / kPanelRows;
inline constexpr int kRowGroups = kWarpsM / 4;  // warpgroups that multiply, on sm_90a
inline constexpr int kStageUnits = BF_UNITS, kStageK = kStageUnits * kLayout.unit_k(), kBlocks = kStageK / kBlockK;
inline constexpr int kUnitBytes = kLayout.unit_bytes();
inline constexpr int kXBlockBytes = kTokens * kBlockK * 2;
inline constexpr int kWeightBytes = (kTilePanels * kStageUnits * kUnitBytes + 1023) / 1024 * 1024;  // the swizzle of x goes by the address
inline constexpr int kStageBytes = kBlocks * kXBlockBytes + kWeightBytes;
inline constexpr ActivationKind kActivation = static_cast<ActivationKind>(BF_ACTIVATION);
inline constexpr bool kGated = IsGated(kActivation);

static_assert(kOut % kPanelRows == 0 && kN8 % 2 == 0 && kM16 <= 4);
static_assert(kUnitBytes % 16 == 0);

struct Tile {
  int out;        // first packed row
  int first_row;  // of y
  int rows;
  int expert;
  int first_step, end_step;  // of K, kStageK columns each
};

/// Calls run(tile) for every tile of this block.
template <class Run>
__device__ __forceinline__ void ForEachTile(const LinearTileArgs& args, const Run& run) {
  const int out = args.tile_panels * kPanelRows;
  const int steps = (args.units + kStageUnits - 1) / kStageUnits;
#if BF_GROUPED
  // Tiles are listed by falling cost: back and forth, so that no block has the costliest of each turn.
  const int out_tiles = (args.panels + args.tile_panels - 1) / args.tile_panels;
  const int64_t tiles = static_cast<int64_t>(*args.work_count) * out_tiles;
  for (int64_t turn = 0; turn * gridDim.x < tiles; ++turn) {
    const int64_t t = turn * gridDim.x + (turn % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x);
    if (t >= tiles) continue;
    const TileWork work = args.work[t / out_tiles];
    run(Tile{static_cast<int>(t % out_tiles) * out, work.first_row, work.rows, work.expert, 0, steps});
  }
#else
  // A division takes a tenth of a microsecond of the start.
  int t = blockIdx.x, first_row = 0, first_step = 0, end_step = steps;
  if (args.splits > 1) {
    const int split = t % args.splits;
    t /= args.splits;
    first_step = steps * split / args.splits, end_step = steps * (split + 1) / args.splits;
  }
  if (args.M > kTokens) {
    // Bands of token tiles: within one, the x rows stay in L2 while the weight streams by once.
    const int out_tiles = (args.panels + args.tile_panels - 1) / args.tile_panels, token_tiles = (args.M + kTokens - 1) / kTokens;
    const int first_token_tile = t / (args.band * out_tiles) * args.band;
    const int band = min(args.band, token_tiles - first_token_tile), inside = t - first_token_tile * out_tiles;
    first_row = (first_token_tile + inside % band) * kTokens;
    t = inside / band;
  }
  run(Tile{t * out, first_row, min(kTokens, args.M - first_row), 0, first_step, end_step});
#endif
}

}  // namespace billfish::cuda
