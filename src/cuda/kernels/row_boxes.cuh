// The rows of x that a CTA of the dense decode kernel on sm_90a keeps in shared memory: the columns of its slice of K in boxes of 64, as
// wgmma takes them (wgmma.cuh), zeros beyond K and M.
//
// The copy engine brings parts of the columns, and the warps of the CTA begin with the parts that have come.
#pragma once

#include "cuda/kernels/linear_decode.cuh"
#include "cuda/kernels/shared_barrier.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace billfish::cuda {

template <int kTokens, int kWarps>
class RowBoxes {
  static constexpr int kParts = 4, kStepBoxes = kStepK / kBlockK;

 public:
  static constexpr int kBoxBytes = kTokens * kBlockK * 2;
  struct Shared {
    uint64_t arrived[kParts];
  };

  /// Of the longest slice.
  static __device__ __forceinline__ int Bytes(const LinearDecodeArgs& args) {
    const int steps = (args.units + kStepUnits - 1) / kStepUnits;
    return (steps + (1 << args.splits_log2) - 1 >> args.splits_log2) * (kStepBoxes * kBoxBytes);
  }

  /// `boxes`: a multiple of 1024 bytes from the start of shared memory.
  __device__ __forceinline__ RowBoxes(const Slice& slice, Shared* shared, const uint8_t* boxes)
      : slice_(slice), shared_(shared), boxes_(SharedAddress(boxes)), part_((slice.count + kParts - 1) / kParts) {}

  /// Before a barrier of the whole CTA, and that before Copy: what does not depend on x.
  __device__ __forceinline__ void Begin() const {
    if (threadIdx.x % 32 == 0 && threadIdx.x < 32 * kParts) InitBarrier(&shared_->arrived[threadIdx.x / 32], 1);
  }

  /// Once x is there, by all warps: each asks for boxes of its own.
  __device__ __forceinline__ void Copy(const TensorMap& map, int warp) const {
    if (ElectLane()) {
      const uint32_t arrived = SharedAddress(shared_->arrived);
      if (warp == 0) {
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          const int steps = min((part + 1) * part_, slice_.count) - min(part * part_, slice_.count);
          ArriveExpecting(arrived + part * 8, static_cast<uint32_t>(steps * kStepBoxes * kBoxBytes));
        }
      }
#pragma unroll 1
      for (int box = warp; box < slice_.count * kStepBoxes; box += kWarps) {
        CopyBox(boxes_ + box * kBoxBytes, &map, slice_.first * kStepK + box * kBlockK, 0, arrived + PartOf(box / kStepBoxes) * 8);
      }
    }
    __syncwarp();
  }

  /// Returns once the columns of step `step` are there: the step before which they end.
  __device__ __forceinline__ int Await(int step) {
    const int part = PartOf(step);
    if (awaited_ == (1 << kParts) - 1) return slice_.count;
    cuda::Await(&shared_->arrived[part], 0);
    awaited_ |= 1 << part;
    return (part + 1) * part_;
  }

  /// What wgmma is told about step `step`; box i of it is i * kBoxBytes / 16 further, and the next step kStepBoxes of them.
  __device__ __forceinline__ uint64_t Descriptor(int step) const {
    return SwizzledDescriptor(boxes_) + step * (kStepBoxes * kBoxBytes / 16);
  }

 private:
  __device__ __forceinline__ int PartOf(int step) const {
    return (step >= part_ ? 1 : 0) + (step >= 2 * part_ ? 1 : 0) + (step >= 3 * part_ ? 1 : 0);
  }

  const Slice& slice_;
  Shared* shared_;
  uint32_t boxes_;
  int part_;         ///< steps of a part
  int awaited_ = 0;  ///< a bit for each part that is known to be there
};

}  // namespace billfish::cuda
