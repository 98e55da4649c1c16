// Linear for few rows of activations on the asynchronous tensor cores of sm_90a.
//
// As w4a16_linear_decode_sm80.cu, but a team of four warps, a warpgroup, goes along a panel side by side: each brings and decodes its own
// 16 rows, and wgmma multiplies all 64 by x in shared memory, which no warp loads. For rows of x that the copy engine takes.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_STEP_UNITS   units of a step
//   BF_TOKENS       rows of x at most: 8 or 16
//   BF_WARPS        warps of a CTA, whole teams    BF_STAGES   steps in the ring of a warp
#include "cuda/kernels/block_sums.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/linear_decode.cuh"
#include "cuda/kernels/ring_steps.cuh"
#include "cuda/kernels/row_boxes.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kTeam = 4, kWarps = BF_WARPS, kTeams = kWarps / kTeam, kThreads = 32 * kWarps, kStages = BF_STAGES;
constexpr int kTokens = BF_TOKENS, kTiles = kTokens / 8;
static_assert(kWarps % kTeam == 0);

using WarpSteps = RingSteps<1, kStages, kTeam>;
using Rows = RowBoxes<kTokens, kWarps>;
using Sums = BlockSums<1, kTiles, kWarps, kTeam>;

constexpr int kRingBytes = (kWarps * WarpSteps::kSharedBytes + 1023) / 1024 * 1024;

// acc += W x^T of one step. The codes of 64 columns are decoded while the tensor cores work on the 64 before.
__device__ __forceinline__ void Multiply(const WarpSteps::Step& step, uint64_t x, float (&acc)[1][kTiles][4]) {
  float part[kTiles][4];
  uint32_t a[2][kPlanes][4];
  RowScales scales;
#pragma unroll
  for (int b = 0; b < kStepUnits * kUnitBlocks; ++b) {
    const int u = b / kUnitBlocks, block = b % kUnitBlocks;
    uint32_t words[kBlockWords];
    if (block == 0) scales = step.LoadScales(u, 0);
    step.LoadWords(u, block, 0, words);
    if (b >= 2) WaitMma<1>();
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) DecodePlane(words, scales, block, plane, a[b % 2][plane]);
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
      const int k = block * kBlockK + plane * 16;
      const uint64_t columns = x + (b * Rows::kBoxBytes + plane * 32) / 16;
      if (plane == 0 || (kScaleOnAccumulator && k % kLayout.group == 0)) FenceRegisters();
      if constexpr (kScaleOnAccumulator) {
        GroupMma(part, a[b % 2][plane], columns, k % kLayout.group != 0);
        if ((k + 16) % kLayout.group != 0) continue;
        CommitMma();
        WaitMma<0>();
        const int group = k / kLayout.group;
        const float low = AccumulatorScale(scales, 0, group), high = AccumulatorScale(scales, 1, group);
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) acc[0][n][i] = fmaf(i < 2 ? low : high, part[n][i], acc[0][n][i]);
        }
      } else {
        GroupMma(acc[0], a[b % 2][plane], columns, 1);
      }
    }
    if constexpr (!kScaleOnAccumulator) CommitMma();
  }
  WaitMma<0>();
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    w4a16_linear_decode_sm90a(const __grid_constant__ LinearDecodeArgs args, const __grid_constant__ TensorMap x_map) {
  extern __shared__ __align__(1024) uint8_t shared[];  // rings, rows of x, barriers of x, sums
  auto* rows_shared = reinterpret_cast<Rows::Shared*>(shared + kRingBytes + Rows::Bytes(args));
  auto* sums_shared = reinterpret_cast<Sums::Shared*>(rows_shared + 1);
  const int lane = threadIdx.x % 32, warp = WarpOfBlock(), team = warp / kTeam;
  const int rank = static_cast<int>(blockIdx.x) & ((1 << args.splits_log2) - 1);
  const Slice slice(args, rank);
  const Blocks blocks(args, static_cast<int>(blockIdx.x) >> args.splits_log2);
  const Stretch<kTeams> stretch(blocks.count, slice.count, team);

  // Weights first: no kernel writes them. But a single step, since more would keep x waiting, unless there are many and they are decoded as
  // fast as they come.
  int block = Quotient(stretch.begin, slice.count), step = stretch.begin - block * slice.count;
  WarpSteps steps(StepWalk<1, kTeam>(args, slice, blocks.first + block, step, stretch.end - stretch.begin),
                  shared + threadIdx.x / 32 * WarpSteps::kSharedBytes, lane);
  const bool all_at_once = kScaleOnAccumulator && stretch.end - stretch.begin > 2 * kStages;
  steps.Begin<0, 1>();
  if (all_at_once) steps.Begin<1>();
  AllowDependents();
  Sums sums(args, sums_shared, rank, blocks);
  Rows rows(slice, rows_shared, shared + kRingBytes);
  rows.Begin();
  sums.Begin(stretch, slice.count, warp, lane);
  sums.WaitBegun();
  WaitForPredecessor();
  rows.Copy(x_map, warp);
  if (!all_at_once) steps.Begin<1>();

#pragma unroll 1
  for (int left = stretch.end - stretch.begin; left > 0; ++block, step = 0) {
    float acc[1][kTiles][4] = {};
    const int begin = step, end = min(slice.count, step + left);
    left -= end - begin;
    if (begin == 0) sums.Start(block, warp, lane);
    while (step < end) {
      const int ready = min(end, rows.Await(step));
#pragma unroll 1
      for (; step < ready; ++step) Multiply(steps.Take(), rows.Descriptor(step), acc);
    }
    if (begin > 0) {
      sums.Post(stretch.TeamAt(block * slice.count) * kTeam + warp % kTeam, warp, lane, acc);
    } else {
      if (end < kStages) WaitCopies<0>();
      sums.Finish(block, end == slice.count, warp, lane, acc);
    }
  }
  WaitCopies<0>();
}
