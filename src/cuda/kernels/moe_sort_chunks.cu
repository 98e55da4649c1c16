// The sort of moe_sort for many slots: chunks of kSortChunk slots, a block each, and three launches.
//
//   phase 0   a block ranks the slots of its chunk within their experts and counts the experts: position = rank, counts[chunk][e]
//   phase 1   one block: counts[chunk][e] becomes the first row of (e, chunk); offsets and the list of tiles
//   phase 2   a block moves the slots of its chunk to their rows
//
// No atomics: what comes out depends on the ids alone. Dynamic shared memory: phase 0 [32 warps][E] of 2 bytes, phase 1 [3 (E + 1)] of 4.
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/tile_list.cuh"

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
  __shared__ Extent sums[32];
  const int E = args.E, chunks = (args.slots + kSortChunk - 1) / kSortChunk;
  const TilePlaces places{shared, shared + E + 1, shared + 2 * E + 1};
  Extent carry{};
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
    const Extent own = ExtentOf(args, total);
    Extent all, before = BlockExclusive(own, sums, all);
    Add(before, carry);
    Add(carry, all);
    if (expert < E) {
      PlaceTiles(args, places, expert, own, before);
      args.offsets[expert] = before.rows;
    }
  }
  if (threadIdx.x == 0) {
    places.row[E] = args.offsets[E] = carry.rows;
    *args.work_count = carry.tiles[0] + carry.tiles[1] + carry.tiles[2] + carry.tiles[3];
  }
  __syncthreads();
  ListTiles(args, places, carry);
}

__device__ void MoveChunk(const SortArgs& args) {
  const int slot = static_cast<int>(blockIdx.x) * kSortChunk + static_cast<int>(threadIdx.x);
  const int e = LocalExpert(args, slot);
  if (e < 0) return;  // its position is -1 already
  const int row = args.offsets[e] + args.counts[static_cast<int64_t>(blockIdx.x) * args.E + e] + args.position[slot];
  args.position[slot] = row;
  args.source[row] = slot / args.top_k;
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
