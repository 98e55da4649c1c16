// The sort of moe_sort for many slots: chunks of kSortChunk slots, a block each, and three launches.
//
//   phase 0   a block ranks the slots of its chunk within their experts and counts the experts: position = rank, counts[chunk][e]
//   phase 1   one block: counts[chunk][e] becomes the first row of (e, chunk); offsets and the list of tiles
//   phase 2   a block moves the slots of its chunk to their rows
//
// No atomics: what comes out depends on the ids alone. Dynamic shared memory: phase 0 [32 warps][E] of 2 bytes, phase 1 [2 (E + 1)] of 4.
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/moe_args.h"

namespace {
using namespace billfish::cuda;

constexpr uint32_t kAll = 0xffffffffu;
constexpr int kWarps = kSortChunk / 32;
constexpr int kBatch = 8;  // loads under way at a time

__device__ __forceinline__ int LocalExpert(const SortArgs& args, int slot) {
  if (slot >= args.slots) return -1;
  const int e = args.ids[slot] - args.first_expert;
  return e >= 0 && e < args.E ? e : -1;
}

// The sum of `value` over the threads before this one, and over all; `sums` [32] is scratch.
__device__ __forceinline__ int BlockExclusive(int value, int* sums, int& total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int inclusive = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int below = __shfl_up_sync(kAll, inclusive, step);
    if (lane >= step) inclusive += below;
  }
  __syncthreads();
  if (lane == 31) sums[warp] = inclusive;
  __syncthreads();
  int before = 0;
  total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before = total;
    total += sums[w];
  }
  return before + inclusive - value;
}

__device__ void RankChunk(const SortArgs& args, uint16_t* counts) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int i = threadIdx.x; i < kWarps * args.E; i += kSortChunk) counts[i] = 0;
  __syncthreads();
  const int slot = static_cast<int>(blockIdx.x) * kSortChunk + static_cast<int>(threadIdx.x);
  const int e = LocalExpert(args, slot);
  const uint32_t same = __match_any_sync(kAll, e);
  const int rank = __popc(same & ((1u << lane) - 1));
  if (e >= 0 && rank == 0) counts[warp * args.E + e] = static_cast<uint16_t>(__popc(same));
  __syncthreads();
  for (int expert = threadIdx.x; expert < args.E; expert += kSortChunk) {
    int total = 0;
    for (int base = 0; base < kWarps; base += kBatch) {
      int count[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) count[i] = counts[(base + i) * args.E + expert];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        counts[(base + i) * args.E + expert] = static_cast<uint16_t>(total);
        total += count[i];
      }
    }
    args.counts[static_cast<int64_t>(blockIdx.x) * args.E + expert] = total;
  }
  __syncthreads();
  if (slot < args.slots) args.position[slot] = e < 0 ? -1 : counts[warp * args.E + e] + rank;
}

__device__ void ScanChunks(const SortArgs& args, int* shared) {
  __shared__ int sums[kWarps];
  const int E = args.E, chunks = (args.slots + kSortChunk - 1) / kSortChunk;
  int* row_start = shared;              // [E + 1]
  int* tile_start = row_start + E + 1;  // [E + 1]
  int rows_before = 0, tiles_before = 0;
  for (int first = 0; first < E; first += kSortChunk) {
    const int expert = first + static_cast<int>(threadIdx.x);
    int total = 0;
    if (expert < E) {
      for (int base = 0; base < chunks; base += kBatch) {
        int count[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) count[i] = base + i < chunks ? args.counts[static_cast<int64_t>(base + i) * E + expert] : 0;
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          if (base + i < chunks) args.counts[static_cast<int64_t>(base + i) * E + expert] = total;
          total += count[i];
        }
      }
    }
    int rows = 0, tiles = 0;
    const int row = rows_before + BlockExclusive(total, sums, rows);
    const int tile = tiles_before + BlockExclusive((total + args.tile_rows - 1) / args.tile_rows, sums, tiles);
    if (expert < E) {
      row_start[expert] = row, tile_start[expert] = tile;
      args.offsets[expert] = row;
    }
    rows_before += rows, tiles_before += tiles;
  }
  if (threadIdx.x == 0) {
    row_start[E] = args.offsets[E] = rows_before;
    *args.work_count = tiles_before;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < tiles_before; i += kSortChunk) {
    int low = 0, high = E - 1;  // the last expert whose first tile is at most i
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (tile_start[middle] <= i) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    const int row = row_start[low] + (i - tile_start[low]) * args.tile_rows;
    args.work[i] = TileWork{low, row, min(args.tile_rows, row_start[low + 1] - row)};
  }
}

__device__ void MoveChunk(const SortArgs& args) {
  const int slot = static_cast<int>(blockIdx.x) * kSortChunk + static_cast<int>(threadIdx.x);
  const int e = LocalExpert(args, slot);
  if (e < 0) return;  // its position is -1 already
  const int row = args.offsets[e] + args.counts[static_cast<int64_t>(blockIdx.x) * args.E + e] + args.position[slot];
  args.position[slot] = row;
  args.source[row] = slot / args.top_k;
  args.row_weight[row] = args.weights[slot];
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kSortChunk) moe_sort_chunks(const __grid_constant__ SortArgs args) {
  extern __shared__ int shared[];
  AllowDependents();
  WaitForPredecessor();
  if (args.phase == 0) {
    RankChunk(args, reinterpret_cast<uint16_t*>(shared));
  } else if (args.phase == 1) {
    ScanChunks(args, shared);
  } else {
    MoveChunk(args);
  }
}
