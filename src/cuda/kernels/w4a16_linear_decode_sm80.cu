// Linear for few rows of activations: y = x . W^T at the speed at which W can be read.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_STEP_UNITS   units of a step
//   BF_TOKENS       rows of x at most: 8 or 16
//   BF_ROW_BLOCKS   16-row blocks of a block of rows: 1, 2 or 4 (a panel)
//   BF_WARPS        warps of a CTA            BF_BLOCKS   CTAs an SM
//   BF_STAGES       steps in the ring of a warp
//   BF_STREAM_X     0: the CTA's slice of x stays in shared memory; 1: x is read from global memory again and again
//
// W is the A operand: rows of W are the rows of the product, tokens its columns. A cluster has a range of blocks of rows, its CTAs cut K
// into slices of whole steps, and the warps of a CTA share the sequence of its steps, block by block, in stretches: each brings and decodes
// its steps alone and goes along K without a break. Warps meet where a block ends in another stretch than it begins (block_sums.cuh).
//
// Columns of the tensor-core step beyond M repeat row M - 1 of x and are thrown away.
#include "cuda/kernels/block_sums.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/kept_rows.cuh"
#include "cuda/kernels/linear_decode.cuh"
#include "cuda/kernels/ring_steps.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = BF_WARPS, kThreads = 32 * kWarps, kStages = BF_STAGES;
constexpr int kRowBlocks = BF_ROW_BLOCKS, kTokens = BF_TOKENS, kTiles = kTokens / 8;
constexpr bool kStreamX = BF_STREAM_X != 0;

using WarpSteps = RingSteps<kRowBlocks, kStages>;
using WarpRows = KeptRows<kWarps>;
using Sums = BlockSums<kRowBlocks, kTiles, kWarps>;

// Columns k and k + 1 of a row of x in global memory; zero beyond K.
__device__ __forceinline__ uint32_t LoadPair(const LinearDecodeArgs& args, const uint16_t* row, int k) {
  if (args.x_aligned != 0 && k + 1 < args.K) return __ldg(reinterpret_cast<const uint32_t*>(row + k));
  return (k < args.K ? row[k] : 0u) | (k + 1 < args.K ? static_cast<uint32_t>(row[k + 1]) << 16 : 0u);
}

// Where a lane finds its part of the B operands of a step: in shared memory the row of each 8 tokens at its chunk of the first 32 columns,
// or in global memory the row of its column of the operand.
class StepOfX {
 public:
  __device__ __forceinline__ StepOfX(const LinearDecodeArgs& args, const Slice& slice, const uint8_t* x_slice, int lane)
      : args_(args), first_k_(kStreamX ? slice.first * kStepK + lane % 4 * 2 : 0) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      if constexpr (kStreamX) {
        row_[n] = static_cast<const uint16_t*>(args.x) + min(n * 8 + lane / 4, args.M - 1) * args.x_stride;
      } else {
        shared_row_[n] = SharedAddress(x_slice) + min(n * 8 + lane % 8, args.M - 1) * args.x_row_bytes + lane / 8 * 16;
        asm volatile("" : "+r"(shared_row_[n]));  // to be kept, not computed again for each step
      }
    }
  }

  __device__ __forceinline__ void GoTo(int step) {
    k_ = first_k_ + step * kStepK;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) at_[n] = shared_row_[n] + step * (kStepK * 2);
  }

  __device__ __forceinline__ void GoOn() {
    k_ += kStepK;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) at_[n] += kStepK * 2;
  }

  /// The B operands of two planes, 32 columns, number `pair` of the step.
  __device__ __forceinline__ void Load(int pair, uint32_t (&b)[2][kTiles][2]) const {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      if constexpr (kStreamX) {
#pragma unroll
        for (int i = 0; i < 4; ++i) b[i / 2][n][i % 2] = LoadPair(args_, row_[n], k_ + pair * 32 + i * 8);
      } else {
        uint32_t v[4];
        LoadMatrices(at_[n] + pair * 64, v);
        b[0][n][0] = v[0], b[0][n][1] = v[1], b[1][n][0] = v[2], b[1][n][1] = v[3];
      }
    }
  }

 private:
  const LinearDecodeArgs& args_;
  const uint16_t* row_[kTiles];
  uint32_t shared_row_[kTiles], at_[kTiles];
  int first_k_, k_;
};

// acc += W x^T of one step.
__device__ __forceinline__ void Multiply(const WarpSteps::Step& step, const StepOfX& x, float (&acc)[kRowBlocks][kTiles][4]) {
  float part[kRowBlocks][kTiles][4];
#pragma unroll
  for (int u = 0; u < kStepUnits; ++u) {
    RowScales scales[kRowBlocks];
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) scales[rb] = step.LoadScales(u, rb);
#pragma unroll
    for (int block = 0; block < kUnitBlocks; ++block) {
      uint32_t words[kRowBlocks][kBlockWords];
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) step.LoadWords(u, block, rb, words[rb]);
      uint32_t b[2][kTiles][2];
#pragma unroll
      for (int plane = 0; plane < kPlanes; ++plane) {
        if (plane % 2 == 0) x.Load(((u * kUnitBlocks + block) * kPlanes + plane) / 2, b);
        const int k = block * kBlockK + plane * 16;
        // Row block by row block: a step does not wait for the one before on the same sums.
#pragma unroll
        for (int rb = 0; rb < kRowBlocks; ++rb) {
          uint32_t a[4];
          DecodePlane(words[rb], scales[rb], block, plane, a);
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
            if constexpr (kScaleOnAccumulator) {
              if (k % kLayout.group == 0) part[rb][n][0] = part[rb][n][1] = part[rb][n][2] = part[rb][n][3] = 0;
              Mma(part[rb][n], a, b[plane % 2][n]);
            } else {
              Mma(acc[rb][n], a, b[plane % 2][n]);
            }
          }
        }
        if constexpr (kScaleOnAccumulator) {
          if ((k + 16) % kLayout.group != 0) continue;
          const int group = k / kLayout.group;
#pragma unroll
          for (int rb = 0; rb < kRowBlocks; ++rb) {
            const float low = AccumulatorScale(scales[rb], 0, group), high = AccumulatorScale(scales[rb], 1, group);
#pragma unroll
            for (int n = 0; n < kTiles; ++n) {
#pragma unroll
              for (int i = 0; i < 4; ++i) acc[rb][n][i] = fmaf(i < 2 ? low : high, part[rb][n][i], acc[rb][n][i]);
            }
          }
        }
      }
    }
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BF_BLOCKS) w4a16_linear_decode(const __grid_constant__ LinearDecodeArgs args) {
  extern __shared__ __align__(256) uint8_t shared[];  // rings, barriers of x, sums, rows of x
  auto* rows_shared = reinterpret_cast<WarpRows::Shared*>(shared + kWarps * WarpSteps::kSharedBytes);
  auto* sums_shared = reinterpret_cast<Sums::Shared*>(rows_shared + 1);
  const int lane = threadIdx.x % 32, warp = WarpOfBlock();
  const int rank = static_cast<int>(blockIdx.x) & ((1 << args.splits_log2) - 1);
  const Slice slice(args, rank);
  const Blocks blocks(args, static_cast<int>(blockIdx.x) >> args.splits_log2);
  const Stretch<kWarps> stretch(blocks.count, slice.count, warp);

  // Weights first: no kernel writes them.
  int block = Quotient(stretch.begin, slice.count), step = stretch.begin - block * slice.count;
  WarpSteps steps(StepWalk<kRowBlocks>(args, slice, blocks.first + block, step, stretch.end - stretch.begin),
                  shared + threadIdx.x / 32 * WarpSteps::kSharedBytes, lane);
  steps.Begin();
  AllowDependents();
  Sums sums(args, sums_shared, rank, blocks);
  uint8_t* x_slice = reinterpret_cast<uint8_t*>(sums_shared) + Sums::Bytes(args, blocks.count);
  WarpRows rows(args, slice, rows_shared, x_slice);
  if constexpr (!kStreamX) rows.Begin();
  sums.Begin(stretch, slice.count, warp, lane);
  sums.WaitBegun();
  WaitForPredecessor();
  if constexpr (!kStreamX) rows.Copy(warp);

  StepOfX x(args, slice, x_slice, lane);
#pragma unroll 1
  for (int left = stretch.end - stretch.begin; left > 0; ++block, step = 0) {
    float acc[kRowBlocks][kTiles][4] = {};
    const int begin = step, end = min(slice.count, step + left);
    left -= end - begin;
    if (begin == 0) sums.Start(block, warp, lane);
    while (step < end) {
      int ready = end;
      if constexpr (!kStreamX) ready = min(end, rows.Await(step));
      x.GoTo(step);
#pragma unroll 1
      for (; step < ready; ++step, x.GoOn()) Multiply(steps.Take(), x, acc);
    }
    if (begin > 0) {
      sums.Post(stretch.TeamAt(block * slice.count), warp, lane, acc);
    } else {
      if (end < kStages) WaitCopies<0>();
      sums.Finish(block, end == slice.count, warp, lane, acc);
    }
  }
  WaitCopies<0>();
}
