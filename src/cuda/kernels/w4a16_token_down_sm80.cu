// The down matrices of one token's experts and their weighted sum: y = (addend) + sum over slots j of weights[j] (W[e_j] h_j + b[e_j]).
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_WARPS        warps of a block          BF_BLOCKS   blocks an SM
//   BF_AHEAD        units that a warp has in registers, asked for before it multiplies those before them
//
// A block takes 16 rows of y at a time, all experts of them, so that sums meet in shared memory and nothing is left for another kernel.
// Its warps take equal parts of the units of all experts one behind the other: the first weights are on their way while the kernel before
// still computes h. Rows of h are sorted by expert, as the gate|up kernel left them. The order of every sum depends on the ids alone.
#define BF_SHIFTS
#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/held_unit.cuh"
#include "cuda/kernels/moe_output.cuh"

namespace {
using namespace billfish::cuda;

constexpr uint32_t kAll = 0xffffffffu;
constexpr int kWarps = BF_WARPS, kAhead = BF_AHEAD;

// Experts and weights by row of h.
struct Slots {
  int expert[kDirectSlots];
  float weight[kDirectSlots];
};

// Sorts the slots by expert, one a lane, in the order of the gate|up kernel; how many have an expert here.
__device__ __forceinline__ int SortSlots(const GroupedDecodeArgs& args, int lane, Slots& out) {
  int e = lane < args.slots ? args.ids[lane] - args.first_expert : -1;
  if (e < 0 || e >= args.E) e = -1;
  int row = 0;
  for (int s = 0; s < args.slots; ++s) {
    const int other = __shfl_sync(kAll, e, s);
    if (other >= 0 && (other < e || (other == e && s < lane))) ++row;
  }
  if (e >= 0) {
    out.expert[row] = e;
    out.weight[row] = args.weights == nullptr ? 1.0f : args.weights[lane];
  }
  const int count = __popc(__ballot_sync(kAll, e >= 0));
  __syncwarp();
  return count;
}

// A warp's units: first .. last - 1 of those of all experts one behind the other, for each row block of the block. A stretch is the part
// of them that belongs to one expert.
struct Walk {
  const GroupedDecodeArgs& args;
  const Slots& slots;
  int first, last;  // units
  int block, last_block;
  int row = 0, unit = 0, end = 0;  // the stretch: row of h, units of its expert

  __device__ __forceinline__ bool Done() const { return block >= last_block; }
  __device__ __forceinline__ void Begin() {
    if (first >= last) block = last_block;
    Stretch(first / args.units, first % args.units);
  }
  __device__ __forceinline__ void Stretch(int row_, int unit_) {
    row = row_, unit = unit_;
    end = min(args.units, last - row * args.units);
  }
  /// To the next stretch; true at the end of a row block.
  __device__ __forceinline__ bool Next() {
    if ((row + 1) * args.units < last) {
      Stretch(row + 1, 0);
      return false;
    }
    ++block;
    Stretch(first / args.units, first % args.units);
    return true;
  }
  __device__ __forceinline__ UnitPlace Place(int lane) const {
    const int64_t at = static_cast<int64_t>(block / 4) * args.units + unit;
    return UnitPlace(args.weight + slots.expert[row] * args.expert_bytes + at * kLayout.unit_bytes(), block % 4, lane);
  }
};

// The columns of h of a warp's units, one unit behind the other.
__device__ __forceinline__ void CopyRows(const GroupedDecodeArgs& args, const Walk& walk, uint32_t to, int lane) {
  constexpr int kChunks = kRowBytes / 16;
  for (int c = lane; c < (walk.last - walk.first) * kChunks; c += 32) {
    const int unit = walk.first + c / kChunks, row = unit / args.units;
    const int k = (unit - row * args.units) * kUnitK + c % kChunks * 8;
    const uint16_t* from = static_cast<const uint16_t*>(args.x);
    CopyAsync16Zeroed(to + c * 16, k < args.K ? from + row * args.x_stride + k : from, k < args.K ? 16 : 0);
  }
  CommitCopies();
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kWarps * 32, BF_BLOCKS) w4a16_token_down(const __grid_constant__ GroupedDecodeArgs args) {
  extern __shared__ uint8_t shared[];
  __shared__ Slots all_slots[kWarps];
  __shared__ float parts[2][kWarps][16];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Slots& slots = all_slots[warp];

  if (args.early_weights == 0) WaitForPredecessor();
  const int count = SortSlots(args, lane, slots);
  const int64_t blocks = args.panels * 4, units = count * args.units;
  const int first_block = static_cast<int>(blocks * blockIdx.x / gridDim.x);
  Walk walk{args,
            slots,
            static_cast<int>(units * warp / kWarps),
            static_cast<int>(units * (warp + 1) / kWarps),
            first_block,
            static_cast<int>(blocks * (blockIdx.x + 1) / gridDim.x)};
  walk.Begin();

  const uint64_t policy = EvictFirst();
  HeldUnit held[kAhead];
  Walk ahead = walk;
  UnitPlace place;
  if (!ahead.Done()) place = ahead.Place(lane);
  const auto load = [&](int a) {
    if (!ahead.Done() && ahead.unit + a < ahead.end) {
      place.Load(a, policy, held[a]);
    }
  };
  const auto advance = [&] {
    if (ahead.Done()) return;
    ahead.unit += kAhead;
    place.Advance(kAhead);
    if (ahead.unit < ahead.end) return;
    ahead.Next();
    if (!ahead.Done()) place = ahead.Place(lane);
  };
#pragma unroll
  for (int a = 0; a < kAhead; ++a) load(a);
  advance();
  if (args.early_weights != 0) WaitForPredecessor();
  AllowDependents();
  const uint32_t rows = SharedAddress(shared) + warp * args.x_units * kRowBytes;
  CopyRows(args, walk, rows, lane);

  bool copied = false;
  for (int block = first_block; block < walk.last_block; ++block) {
    float total[2] = {};
    uint32_t from = rows;
    while (!walk.Done() && walk.block == block) {
      const int expert = slots.expert[walk.row];
      const float weight = slots.weight[walk.row];
      float factor[2], bias[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t n = static_cast<int64_t>(expert) * args.panels * kPanelRows + block * 16 + lane / 4 + 8 * half;
        factor[half] = args.row_scale == nullptr ? 1.0f : __ldg(args.row_scale + n);
        bias[half] = args.bias == nullptr || walk.unit != 0 ? 0.0f : __ldg(args.bias + n);
      }
      if (!copied) {
        WaitCopies<0>();
        __syncwarp();
        copied = true;
      }
      float sums[4] = {};
#pragma unroll 1
      for (; walk.unit < walk.end; walk.unit += kAhead) {
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
          if (walk.unit + a < walk.end) {
            Multiply(held[a], from, lane, sums);
            from += kRowBytes;
          }
          load(a);
        }
        advance();
      }
      total[0] = fmaf(weight, fmaf(factor[0], sums[0], bias[0]), total[0]);
      total[1] = fmaf(weight, fmaf(factor[1], sums[2], bias[1]), total[1]);
      walk.Next();
    }
    float* mine = parts[block & 1][warp];
    if (lane % 4 == 0) mine[lane / 4] = total[0], mine[lane / 4 + 8] = total[1];
    __syncthreads();
    const int n = block * 16 + static_cast<int>(threadIdx.x);
    if (threadIdx.x < 16 && n < args.N) {
      float sum = args.addend == nullptr ? 0.0f : LoadAddend(args, n);
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += parts[block & 1][w][threadIdx.x];
      StoreY(args, n, sum);
    }
  }
  WaitCopies<0>();
}
