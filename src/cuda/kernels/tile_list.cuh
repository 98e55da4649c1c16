// The list of tiles that the sorts of slots leave for the grouped kernels: by falling cost, so that blocks which take them in turn end
// together, then by expert.
//
// A tile costs as much as it has blocks of SortArgs::cost_rows rows; all but the last of an expert are whole.
#pragma once

#include "cuda/moe_args.h"

namespace billfish::cuda {

/// Different costs at most.
inline constexpr int kTileCosts = 4;

/// Rows and tiles, of an expert or of those before it. tiles[c]: of the c-th largest cost; whole ones have the largest.
struct Extent {
  int rows, tiles[kTileCosts];
};

/// Place of the cost of a tile of `rows` rows.
__device__ __forceinline__ int CostOf(const SortArgs& args, int rows) {
  return args.cost_rows == 0 ? 0 : (args.tile_rows - 1) / args.cost_rows - (rows - 1) / args.cost_rows;
}

__device__ __forceinline__ Extent ExtentOf(const SortArgs& args, int rows) {
  const int whole = rows / args.tile_rows, rest = rows - whole * args.tile_rows, cost = rest == 0 ? -1 : CostOf(args, rest);
  Extent out{rows, {whole}};
#pragma unroll
  for (int c = 0; c < kTileCosts; ++c) out.tiles[c] += c == cost ? 1 : 0;
  return out;
}

__device__ __forceinline__ void Add(Extent& to, const Extent& v) {
  to.rows += v.rows;
#pragma unroll
  for (int c = 0; c < kTileCosts; ++c) to.tiles[c] += v.tiles[c];
}

__device__ __forceinline__ Extent WarpInclusive(Extent v, int lane) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    Extent below;
    below.rows = __shfl_up_sync(0xffffffffu, v.rows, step);
#pragma unroll
    for (int c = 0; c < kTileCosts; ++c) below.tiles[c] = __shfl_up_sync(0xffffffffu, v.tiles[c], step);
    if (lane >= step) Add(v, below);
  }
  return v;
}

/// What the threads before this one have, by all threads of the block; `sums` [32] is scratch, `total` what all have.
__device__ __forceinline__ Extent BlockExclusive(const Extent& own, Extent* sums, Extent& total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  Extent v = WarpInclusive(own, lane);
  __syncthreads();
  if (lane == 31) sums[warp] = v;
  __syncthreads();
  if (warp == 0) {
    const Extent all = WarpInclusive(lane < warps ? sums[lane] : Extent{}, lane);
    __syncwarp();
    sums[lane] = all;
  }
  __syncthreads();
  total = sums[warps - 1];
  if (warp > 0) Add(v, sums[warp - 1]);
  v.rows -= own.rows;
#pragma unroll
  for (int c = 0; c < kTileCosts; ++c) v.tiles[c] -= own.tiles[c];
  return v;
}

/// Where the tiles of an expert go, in shared memory.
struct TilePlaces {
  int* row;    ///< [E + 1] first sorted row
  int* whole;  ///< [E] place of the first whole tile
  int* rest;   ///< [E] of the last tile, if that is not whole, among those of its cost
};

__device__ __forceinline__ void PlaceTiles(const SortArgs& args, const TilePlaces& places, int expert, const Extent& own,
                                           const Extent& before) {
  const int whole = own.rows / args.tile_rows, rest = own.rows - whole * args.tile_rows, cost = rest == 0 ? 0 : CostOf(args, rest);
  places.row[expert] = before.rows;
  places.whole[expert] = before.tiles[0];
  int at = whole;
#pragma unroll
  for (int c = 0; c < kTileCosts; ++c) {
    if (c == cost) at = (c == 0 ? whole : 0) + before.tiles[c];
  }
  places.rest[expert] = at;
}

/// Writes the list, a thread an expert, once all places are there.
__device__ __forceinline__ void ListTiles(const SortArgs& args, const TilePlaces& places, const Extent& total) {
  for (int e = threadIdx.x; e < args.E; e += blockDim.x) {
    int row = places.row[e], at = places.whole[e];
    const int end = places.row[e + 1];
    for (; end - row >= args.tile_rows; row += args.tile_rows) args.work[at++] = TileWork{e, row, args.tile_rows};
    if (row == end) continue;
    at = places.rest[e];
    const int cost = CostOf(args, end - row);
#pragma unroll
    for (int c = 0; c < kTileCosts; ++c) at += c < cost ? total.tiles[c] : 0;
    args.work[at] = TileWork{e, row, end - row};
  }
}

}  // namespace billfish::cuda
