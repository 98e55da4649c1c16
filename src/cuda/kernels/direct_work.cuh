// Few slots: what the grouped decode kernels do for themselves instead of the sort before it and the combine after it.
#pragma once

#include "cuda/kernels/moe_output.cuh"

namespace billfish::cuda {

struct DirectWork {
  TileWork work[kDirectSlots];
  int32_t source[kDirectSlots];
  int32_t position[kDirectSlots];
  float weight[kDirectSlots];
  int32_t tiles;
};

/// Sorts at most 32 slots by expert, one a lane; the same order as moe_sort.
__device__ __forceinline__ void SortDirect(const GroupedDecodeArgs& args, int lane, DirectWork& out) {
  constexpr uint32_t kAll = 0xffffffffu;
  const int most = args.tile_rows;
  int e = lane < args.slots ? args.ids[lane] - args.first_expert : -1;
  if (e < 0 || e >= args.E) e = -1;
  const uint32_t same = __match_any_sync(kAll, e);
  const bool leads = e >= 0 && lane == __ffs(static_cast<int>(same)) - 1;
  const int count = __popc(same), tiles = leads ? (count + most - 1) / most : 0;
  int row = __popc(same & ((1u << lane) - 1)), first_row = 0, first_tile = 0, all_tiles = 0;
  for (int s = 0; s < args.slots; ++s) {
    const int other = __shfl_sync(kAll, e, s), other_tiles = __shfl_sync(kAll, tiles, s);
    all_tiles += other_tiles;
    if (other >= 0 && other < e) ++first_row, first_tile += other_tiles;
  }
  row += first_row;
  if (e >= 0) out.source[row] = args.gather != 0 ? lane / args.top_k : row;
  for (int i = 0; i < tiles; ++i) out.work[first_tile + i] = TileWork{e, first_row + i * most, min(most, count - i * most)};
  if (lane == 0) out.tiles = all_tiles;
  out.position[lane] = e < 0 ? -1 : row;
  out.weight[lane] = lane < args.slots && args.weights != nullptr ? args.weights[lane] : 1.0f;
}

/// Counts the tiles whose sums of 16 columns are in memory; true in the warp that brings the last, which then sees them all.
__device__ __forceinline__ bool IsLastTile(int32_t* arrived, int tiles, int lane) {
  __threadfence();
  __syncwarp();
  int before = 0;
  if (lane == 0) before = atomicAdd(arrived, 1);
  before = __shfl_sync(0xffffffffu, before, 0);
  __threadfence();
  return before == tiles - 1;
}

/// y of all tokens in 16 columns from `first` on: the work of moe_combine, in the same order.
__device__ __forceinline__ void Combine(const GroupedDecodeArgs& args, const DirectWork& work, int first, int lane) {
  constexpr int kBatch = 8;
  const int tokens = args.slots / args.top_k, column = first + lane % 16;
  if (column >= args.N) return;
  for (int t = lane / 16; t < tokens; t += 2) {
    const int64_t at = t * args.y_stride + column;
    float sum = args.addend == nullptr ? 0.0f : LoadAddend(args, at);
    for (int base = 0; base < args.top_k; base += kBatch) {
      int row[kBatch];
      float v[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        row[j] = base + j < args.top_k ? work.position[t * args.top_k + base + j] : -1;
        v[j] = __ldcg(static_cast<const float*>(args.out) + max(row[j], 0) * args.out_stride + column);
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        if (row[j] >= 0) sum = fmaf(work.weight[t * args.top_k + base + j], v[j], sum);
      }
    }
    StoreY(args, at, sum);
  }
}
}  // namespace billfish::cuda
