// Slots sorted by expert and the list of tiles that the grouped kernels work through: one block, stable, no atomics.
//
// Each warp takes a contiguous run of slots, 32 at a time in order. Lanes with the same expert find each other; a slot's rank is the
// number of earlier slots of its run with its expert. The counts of a warp [warps][E] lie in shared memory; a scan over experts, then
// warps turns them into first rows. What comes out depends on the ids alone.
//
// Dynamic shared memory: SortSharedBytes(E, warps) (cuda/moe_args.h).
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/tile_list.cuh"

namespace {
using namespace billfish::cuda;

constexpr uint32_t kAll = 0xffffffffu;
constexpr int kBatch = 8;  // counts that are read before the first is replaced

// The expert of a slot on this device, or -1.
__device__ __forceinline__ int LocalExpert(const SortArgs& args, int slot) {
  if (slot >= args.slots) return -1;
  const int e = args.ids[slot] - args.first_expert;
  return e >= 0 && e < args.E ? e : -1;
}
}  // namespace

extern "C" __global__ void __launch_bounds__(1024) moe_sort(const __grid_constant__ SortArgs args) {
  extern __shared__ int shared[];
  __shared__ Extent sums[32];
  const int E = args.E, warps = blockDim.x / 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int* counts = shared;  // [warps][E], then the rows of an expert before those of a warp
  const TilePlaces places{shared + warps * E, shared + (warps + 1) * E + 1, shared + (warps + 2) * E + 1};

  AllowDependents();
  for (int i = threadIdx.x; i < warps * E; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  WaitForPredecessor();

  // Ranks within the warp's run. position keeps them until the rows are known.
  const int batches = (args.slots + 31) / 32, run = (batches + warps - 1) / warps;
  const int first_slot = warp * run * 32, end_slot = min(args.slots, (warp + 1) * run * 32);
  int* mine = counts + warp * E;
  int first_expert = -1, first_rank = 0;  // of this lane's slot in the first batch: all there is where slots are few
  int next = LocalExpert(args, first_slot + lane);
  for (int base = first_slot; base < end_slot; base += 32) {
    const int e = next;
    next = base + 32 < end_slot ? LocalExpert(args, base + 32 + lane) : -1;
    const uint32_t same = __match_any_sync(kAll, e);
    const int rank = __popc(same & ((1u << lane) - 1));
    const int before = e < 0 ? 0 : mine[e];
    __syncwarp();
    if (e >= 0 && rank == 0) mine[e] = before + __popc(same);
    __syncwarp();
    if (base == first_slot) {
      first_expert = e, first_rank = before + rank;
    } else if (base + lane < end_slot) {
      args.position[base + lane] = before + rank;
    }
  }
  __syncthreads();

  // Scan over experts.
  Extent carry{};
  for (int base = 0; base < E; base += blockDim.x) {
    const int e = base + threadIdx.x;
    int total = 0;
    if (e < E) {
      for (int w = 0; w < warps; w += kBatch) {
        int count[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) count[i] = w + i < warps ? counts[(w + i) * E + e] : 0;
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          if (w + i < warps) counts[(w + i) * E + e] = total;
          total += count[i];
        }
      }
    }
    const Extent own = ExtentOf(args, total);
    Extent all, before = BlockExclusive(own, sums, all);
    Add(before, carry);
    Add(carry, all);
    if (e < E) {
      PlaceTiles(args, places, e, own, before);
      args.offsets[e] = before.rows;
    }
  }
  if (threadIdx.x == 0) {
    places.row[E] = args.offsets[E] = carry.rows;
    *args.work_count = carry.tiles[0] + carry.tiles[1] + carry.tiles[2] + carry.tiles[3];
  }
  __syncthreads();

  for (int base = first_slot; base < end_slot; base += 32) {
    const int slot = base + lane;
    if (slot >= end_slot) continue;
    const int e = base == first_slot ? first_expert : LocalExpert(args, slot);
    if (e < 0) {
      args.position[slot] = -1;
      continue;
    }
    const int row = places.row[e] + mine[e] + (base == first_slot ? first_rank : args.position[slot]);
    args.position[slot] = row;
    args.source[row] = slot / args.top_k;
  }
  ListTiles(args, places, carry);
}
