// A stretch of the steps of the dense decode kernel, one after the other, and where they lie in the weight.
//
// The second unit of the last step may not exist: it lies behind the panel, in the next one or in the padding of the weight's memory, and
// meets columns of x that are zero.
#pragma once

#include "cuda/kernels/linear_decode.cuh"

namespace billfish::cuda {

/// In each unit: [slab][row block][lane] 16 bytes of codes, then the scales, then the zero points.
inline constexpr int kSlabBytes = kTileThreads * 16, kSlabs = kLayout.code_bytes() / kSlabBytes, kSlabsOfBlock = kSlabs / kUnitBlocks;

/// kTeam warps go along a block of rows side by side, each with kRowBlocks 16-row blocks of the panel.
template <int kRowBlocks, int kTeam = 1>
class StepWalk {
 public:
  /// From step `step` of the slice, of block `block` of the weight, `left` steps.
  __device__ __forceinline__ StepWalk(const LinearDecodeArgs& args, const Slice& slice, int block, int step, int left)
      : args_(args), slice_(slice), block_(block), step_(step), left_(left), left_of_block_(slice.count - step) {}

  __device__ __forceinline__ bool Done() const { return left_ == 0; }
  /// The first unit of the step; its row blocks begin with FirstBlock.
  __device__ __forceinline__ const uint8_t* Unit() const {
    const int64_t unit = static_cast<int64_t>(block_ / kBlocksOfPanel) * args_.units + (slice_.first + step_) * kStepUnits;
    return args_.weight + unit * kLayout.unit_bytes();
  }
  __device__ __forceinline__ int FirstBlock() const { return (block_ % kBlocksOfPanel * kTeam + threadIdx.x / 32 % kTeam) * kRowBlocks; }

  /// True if the next step is in the same block: then it lies kStepBytes further on. Else call NextBlock.
  __device__ __forceinline__ bool Advance() {
    --left_;
    return --left_of_block_ > 0;
  }
  __device__ __forceinline__ void NextBlock() {
    asm volatile("");  // as a branch: it is rarely taken
    ++block_, step_ = 0, left_of_block_ = slice_.count;
  }

 private:
  static constexpr int kBlocksOfPanel = 4 / (kRowBlocks * kTeam);

  const LinearDecodeArgs& args_;
  const Slice& slice_;
  int block_, step_;  ///< where the walk began or last came to another block
  int left_, left_of_block_;
};

}  // namespace billfish::cuda
