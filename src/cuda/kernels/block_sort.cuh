// The sort of moe_sort for few slots, by each CTA of the kernel w4a16_grouped_stream for itself: what it needs of the list of tiles, and
// the tokens behind their rows.
#pragma once

#include "cuda/kernels/grouped_walk.cuh"

namespace billfish::cuda {

template <int kThreads>
class BlockSort {
  static constexpr uint32_t kAll = 0xffffffffu;
  static constexpr int kWarps = kThreads / 32, kBatches = (kBlockSortSlots / 32 + kWarps - 1) / kWarps;

 public:
  struct Shared {
    int sums[kWarps];                  ///< rows and tiles of a warp's experts
    uint16_t tokens[kBlockSortSlots];  ///< behind the rows of the CTA's tiles, from the first one's first row on
  };

  /// By all threads; ends with a barrier. `scratch`: BlockSortBytes(E, kWarps) of shared memory, free again afterwards. Fills in `tiles`,
  /// and, where there are any to fill in, the positions of all slots.
  static __device__ __forceinline__ StreamLine Run(const GroupedDecodeArgs& args, uint32_t tile_items, uint8_t* scratch, TileWork* tiles,
                                                   Shared& shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, E = args.E;
    auto* const counts = reinterpret_cast<uint16_t*>(scratch);  // [kWarps][E], then the rows of an expert before those of a warp
    auto* const starts = reinterpret_cast<uint32_t*>(scratch + (kWarps * E + 1) / 2 * 4);  // [E + 1] first row, first tile << 16
    for (int i = threadIdx.x; i < (kWarps * E + 1) / 2; i += kThreads) reinterpret_cast<uint32_t*>(scratch)[i] = 0;
    // A warp takes consecutive slots, 32 at a time.
    const int run = ((args.slots + 31) / 32 + kWarps - 1) / kWarps, first_slot = warp * run * 32 + lane;
    int expert[kBatches], rank[kBatches];
#pragma unroll
    for (int j = 0; j < kBatches; ++j) {
      const int slot = first_slot + 32 * j, e = j < run && slot < args.slots ? args.ids[slot] - args.first_expert : -1;
      expert[j] = e >= 0 && e < E ? e : -1;
    }
    __syncthreads();
    uint16_t* const mine = counts + warp * E;
#pragma unroll
    for (int j = 0; j < kBatches; ++j) {
      if (j >= run) break;
      const int e = expert[j];
      const uint32_t same = __match_any_sync(kAll, e);
      const int before = e < 0 ? 0 : mine[e];
      rank[j] = before + __popc(same & ((1u << lane) - 1));
      __syncwarp();
      if (e >= 0 && lane == __ffs(static_cast<int>(same)) - 1) mine[e] = static_cast<uint16_t>(before + __popc(same));
      __syncwarp();
    }
    __syncthreads();

    uint32_t all = 0;
#pragma unroll 1
    for (int base = 0; base < E; base += kThreads) {
      const int e = base + static_cast<int>(threadIdx.x);
      int rows = 0;
      if (e < E) {
        int count[kWarps];
#pragma unroll
        for (int w = 0; w < kWarps; ++w) count[w] = counts[w * E + e];
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          counts[w * E + e] = static_cast<uint16_t>(rows);
          rows += count[w];
        }
      }
      const int own = rows + ((rows + args.tile_rows - 1) / args.tile_rows << 16);
      int sum = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int below = __shfl_up_sync(kAll, sum, step);
        if (lane >= step) sum += below;
      }
      if (base > 0) __syncthreads();
      if (lane == 31) shared.sums[warp] = sum;
      __syncthreads();
      uint32_t before = all;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const int other = shared.sums[w];
        if (w < warp) before += other;
        all += other;
      }
      if (e < E) starts[e] = before + sum - own;
    }
    if (threadIdx.x == 0) starts[E] = all;
    const StreamLine line(static_cast<int>(all >> 16), tile_items);
    __syncthreads();

    for (int e = threadIdx.x; e < E; e += kThreads) {
      const uint32_t start = starts[e], end = starts[e + 1];
      int row = start & 0xffff;
      for (int t = static_cast<int>(start >> 16) - line.first_tile; t < static_cast<int>(end >> 16) - line.first_tile; ++t) {
        if (t >= 0 && t < line.tile_count) {
          tiles[t] = TileWork{e, row, min(args.tile_rows, static_cast<int>(end & 0xffff) - row)};
        }
        row += args.tile_rows;
      }
    }
    __syncthreads();
    const int first_row = line.tile_count == 0 ? 0 : tiles[0].first_row;
    const int end_row = line.tile_count == 0 ? 0 : tiles[line.tile_count - 1].first_row + tiles[line.tile_count - 1].rows;
#pragma unroll
    for (int j = 0; j < kBatches; ++j) {
      const int slot = first_slot + 32 * j;
      if (j >= run || slot >= args.slots) break;
      const int e = expert[j], row = e < 0 ? -1 : static_cast<int>(starts[e] & 0xffff) + mine[e] + rank[j];
      if (row >= first_row && row < end_row) shared.tokens[row - first_row] = static_cast<uint16_t>(slot / args.top_k);
      if (args.position != nullptr && blockIdx.x == 0) args.position[slot] = row;
    }
    __syncthreads();
    return line;
  }
};

}  // namespace billfish::cuda
