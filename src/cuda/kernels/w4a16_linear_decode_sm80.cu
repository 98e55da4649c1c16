// Linear for few rows of activations: y = x . W^T at the speed at which W can be read.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_TOKENS       rows of x at most: 8 or 16
//   BF_ROW_BLOCKS   16-row blocks of an item: 1, 2 or 4 (a panel)
//   BF_WARPS        warps of a CTA            BF_BLOCKS   CTAs an SM
//   BF_RING         1: steps come through rings in shared memory; 0: into registers, so that x has the shared memory
//   BF_STAGES       steps that a warp has there or on the way
//   BF_BUFFERS      items whose sums are on their way at a time: how far the warps may be apart
//   BF_STREAM_X     0: the CTA's slice of x stays in shared memory; 1: x is read from global memory again and again
//
// W is the A operand: rows of W are the rows of the product, tokens its columns. An item is BF_ROW_BLOCKS row blocks of a panel. The CTAs
// of a cluster split K into slices of whole steps, and the warps of a CTA share the steps of its slice. Every warp brings and decodes its
// steps alone, so that the main loop waits for nothing but memory.
//
// End of an item: each warp sends its sums to the CTA that finishes them (through distributed shared memory where that is another one) and
// begins the next item. One warp adds up an item once it has been through the next: nobody stands still while others end. Sums are added
// in the order of the CTAs and warps: every run gives the same bits.
//
// Columns of the tensor-core step beyond M repeat row M - 1 of x and are thrown away.
#include "cuda/kernels/kept_rows.cuh"
#include "cuda/kernels/linear_decode.cuh"
#include "cuda/kernels/register_steps.cuh"
#include "cuda/kernels/ring_steps.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = BF_WARPS, kThreads = 32 * kWarps, kStages = BF_STAGES;
constexpr int kRowBlocks = BF_ROW_BLOCKS, kTokens = BF_TOKENS, kTiles = kTokens / 8;
constexpr bool kStreamX = BF_STREAM_X != 0;

#if BF_RING
using WarpSteps = RingSteps<kWarps, kRowBlocks, kStages>;
#else
using WarpSteps = RegisterSteps<kWarps, kRowBlocks, kStages>;
#endif
using WarpRows = KeptRows<kWarps>;
using ItemReduction = Reduction<kRowBlocks, kTiles, kWarps, BF_BUFFERS>;

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
  extern __shared__ __align__(256) uint8_t shared[];  // rings, partial sums, barriers, rows of x
  auto* sums = reinterpret_cast<ItemReduction::Shared*>(shared + WarpSteps::kSharedBytes);
  auto* rows_shared = reinterpret_cast<WarpRows::Shared*>(sums + 1);
  uint8_t* x_slice = reinterpret_cast<uint8_t*>(rows_shared + 1);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int rank = static_cast<int>(blockIdx.x) & ((1 << args.splits_log2) - 1);
  const Slice slice(args, rank);

  // Weights first: no kernel writes them.
  WarpSteps steps(args, slice, shared, warp, lane);
  steps.Begin();
  ItemReduction reduction(args, sums, rank, static_cast<int>(threadIdx.x));
  WarpRows rows(args, slice, rows_shared, x_slice);
  if constexpr (!kStreamX) rows.Begin();
  reduction.Begin();
  AllowDependents();
  WaitForPredecessor();
  if constexpr (!kStreamX) rows.Copy();
  steps.BeginRest();
  reduction.WaitBegun();

  const int clusters = static_cast<int>(gridDim.x) >> args.splits_log2, items = args.panels * kItemsOfPanel<kRowBlocks>;
  StepOfX x(args, slice, x_slice, lane);
  int step = warp, turn = 0, item = static_cast<int>(blockIdx.x) >> args.splits_log2, before = 0;
  for (; item < items; item += clusters, ++turn) {
    float acc[kRowBlocks][kTiles][4] = {};
    steps.ForEach(step, slice.count, [&](const WarpSteps::Step& held) {
      if constexpr (!kStreamX) rows.AwaitStep(step);
      x.GoTo(step);
      Multiply(held, x, acc);
    });
    step -= slice.count;

    if (turn > 0) reduction.Finish(turn - 1, before, false, item + (BF_BUFFERS - 1) * clusters < items);
    reduction.Send(turn, acc);
    before = item;
  }
  if (turn > 0) reduction.Finish(turn - 1, before, true, false);
  WaitCopies<0>();
}
