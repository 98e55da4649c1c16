// The steps of a warp of the dense decode kernel, one after the other, and where they lie in the weight.
//
// The second unit of the last step may not exist: it lies behind the panel, in the next one or in the padding of the weight's memory, and
// meets columns of x that are zero.
#pragma once

#include "cuda/kernels/linear_decode.cuh"

namespace billfish::cuda {

/// kRowBlocks row blocks of a panel are an item.
template <int kRowBlocks>
inline constexpr int kItemsOfPanel = 4 / kRowBlocks;

/// In each unit: [slab][row block][lane] 16 bytes of codes, then the scales, then the zero points.
inline constexpr int kSlabBytes = kTileThreads * 16, kSlabs = kLayout.code_bytes() / kSlabBytes, kSlabsOfBlock = kSlabs / kUnitBlocks;

template <int kWarps, int kRowBlocks>
class StepWalk {
 public:
  __device__ __forceinline__ StepWalk(const LinearDecodeArgs& args, const Slice& slice, int warp)
      : args_(args),
        slice_(slice),
        step_(warp),
        item_(static_cast<int>(blockIdx.x) >> args.splits_log2),
        items_(args.panels * kItemsOfPanel<kRowBlocks>) {
    FindItem();
  }

  __device__ __forceinline__ bool Done() const { return item_ >= items_; }
  /// The first unit of the step; its row blocks begin with FirstBlock.
  __device__ __forceinline__ const uint8_t* Unit() const {
    const int64_t unit = static_cast<int64_t>(item_ / kItemsOfPanel<kRowBlocks>) * args_.units + (slice_.first + step_) * kStepUnits;
    return args_.weight + unit * kLayout.unit_bytes();
  }
  __device__ __forceinline__ int FirstBlock() const { return item_ % kItemsOfPanel<kRowBlocks> * kRowBlocks; }

  /// True if the next step is in the same item: then it lies kWarps * kStepBytes further on.
  __device__ __forceinline__ bool Advance() {
    step_ += kWarps;
    if (step_ < slice_.count) return true;
    FindItem();
    return false;
  }

 private:
  __device__ __forceinline__ void FindItem() {
    while (step_ >= slice_.count && item_ < items_) step_ -= slice_.count, item_ += static_cast<int>(gridDim.x) >> args_.splits_log2;
  }

  const LinearDecodeArgs& args_;
  const Slice& slice_;
  int step_, item_, items_;
};

}  // namespace billfish::cuda
