// The steps of a warp through a ring of its own in shared memory: any number of copies may be under way, and waiting for one is not waiting
// for those begun later.
#pragma once

#include "cuda/kernels/step_walk.cuh"

namespace billfish::cuda {

/// A step in shared memory, as a lane sees it: for each unit [slab][row block][lane] 16 bytes of codes, then for each unit the scales of
/// these row blocks, then for each unit their zero points.
template <int kRowBlocks>
class RingStep {
 public:
  static constexpr int kCodeBytes = kSlabs * kRowBlocks * 512;
  static constexpr int kScaleBytes = kRowBlocks * 8 * RowScales::kScaleBytes, kZeroBytes = kRowBlocks * 8 * RowScales::kZeroBytes;
  static constexpr int kScales = kStepUnits * kCodeBytes, kZeros = kScales + kStepUnits * kScaleBytes;
  static constexpr int kBytes = kZeros + kStepUnits * kZeroBytes;

  __device__ __forceinline__ RingStep(const uint8_t* step, int lane) : step_(step), lane_(lane) {}

  /// The words of a lane in block `block` of unit u.
  __device__ __forceinline__ void LoadWords(int u, int block, int rb, uint32_t (&words)[kBlockWords]) const {
#pragma unroll
    for (int i = 0; i < kSlabsOfBlock; ++i) {
      const int slab = (u * kUnitBlocks + block) * kSlabsOfBlock + i;
      weight_detail::LoadBytes<16>(step_ + (slab * kRowBlocks + rb) * 512 + lane_ * 16, words + 4 * i);
    }
  }

  __device__ __forceinline__ RowScales LoadScales(int u, int rb) const {
    RowScales out{};
    if constexpr (kScaleBytes > 0) {
      const int at = kScales + u * kScaleBytes + (rb * 8 + lane_ / 4) * RowScales::kScaleBytes;
      weight_detail::LoadBytes<RowScales::kScaleBytes>(step_ + at, out.scales);
    }
    if constexpr (kZeroBytes > 0) {
      const int at = kZeros + u * kZeroBytes + (rb * 8 + lane_ / 4) * RowScales::kZeroBytes;
      weight_detail::LoadBytes<RowScales::kZeroBytes>(step_ + at, out.zeros);
    }
    return out;
  }

 private:
  const uint8_t* step_;
  int lane_;
};

template <int kWarps, int kRowBlocks, int kStages>
class RingSteps {
 public:
  using Step = RingStep<kRowBlocks>;
  static constexpr int kSharedBytes = kWarps * kStages * Step::kBytes;

  __device__ __forceinline__ RingSteps(const LinearDecodeArgs& args, const Slice& slice, const uint8_t* shared, int warp, int lane)
      : walk_(args, slice, warp), ring_(shared + warp * kStages * Step::kBytes), lane_(lane), policy_(EvictFirst()) {
    Settle();
  }

  /// As many steps as there is room for: the kernel before may still run.
  __device__ __forceinline__ void Begin() {
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) CopyNext();
  }
  __device__ __forceinline__ void BeginRest() {}

  /// Calls take(step) for the steps of this warp from `step` to `count`, and leaves `step` behind them.
  template <class Take>
  __device__ __forceinline__ void ForEach(int& step, int count, Take take) {
    for (; step < count; step += kWarps) {
      WaitCopies<kStages - 2>();
      __syncwarp();
      CopyNext();
      take(Step(ring_ + reading_, lane_));
      reading_ = Next(reading_);
    }
  }

 private:
  static constexpr int kScaleChunks = kStepUnits * Step::kScaleBytes / 16, kZeroChunks = kStepUnits * Step::kZeroBytes / 16;
  static_assert(Step::kScaleBytes % 16 == 0 && Step::kZeroBytes % 16 == 0 && kScaleChunks <= 32 && kZeroChunks <= 32);

  static __device__ __forceinline__ uint32_t Next(uint32_t place) {
    return place == (kStages - 1) * Step::kBytes ? 0 : place + Step::kBytes;
  }

  // Begins to copy the next step, if there is one. A group of copies is committed in any case: WaitCopies counts them.
  __device__ __forceinline__ void CopyNext() {
    if (!walk_.Done()) {
      const uint32_t to = SharedAddress(ring_) + filling_ + lane_ * 16;
#pragma unroll
      for (int u = 0; u < kStepUnits; ++u) {
#pragma unroll
        for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
          for (int rb = 0; rb < kRowBlocks; ++rb) {
            CopyAsync16(to + ((u * kSlabs + slab) * kRowBlocks + rb) * 512,
                        codes_ + u * kLayout.unit_bytes() + slab * kSlabBytes + rb * 512, policy_);
          }
        }
      }
      if (lane_ < kScaleChunks) CopyAsync16(to + Step::kScales, scales_, policy_);
      if (lane_ < kZeroChunks) CopyAsync16(to + Step::kZeros, zeros_, policy_);
      codes_ += kWarps * kStepBytes;
      if constexpr (kScaleChunks > 0) scales_ += kWarps * kStepBytes;
      if constexpr (kZeroChunks > 0) zeros_ += kWarps * kStepBytes;
      if (!walk_.Advance()) Settle();
      filling_ = Next(filling_);
    }
    CommitCopies();
  }

  // Where this lane's chunks of the walk's step lie.
  __device__ __forceinline__ void Settle() {
    const int block = walk_.FirstBlock();
    const uint8_t* codes = walk_.Unit();
    codes_ = codes + block * 512 + lane_ * 16;
    const uint8_t *scales = codes + kLayout.code_bytes(), *zeros = scales + kLayout.scale_bytes();
    if constexpr (kScaleChunks > 0) scales_ = ChunkOf<Step::kScaleBytes>(scales + block * 8 * RowScales::kScaleBytes);
    if constexpr (kZeroChunks > 0) zeros_ = ChunkOf<Step::kZeroBytes>(zeros + block * 8 * RowScales::kZeroBytes);
  }

  // Of kBytes in each unit of the step, the lane's 16.
  template <int kBytes>
  __device__ __forceinline__ const uint8_t* ChunkOf(const uint8_t* first) const {
    constexpr int kChunks = kBytes / 16;
    return first + lane_ / kChunks * kLayout.unit_bytes() + lane_ % kChunks * 16;
  }

  StepWalk<kWarps, kRowBlocks> walk_;
  const uint8_t* ring_;
  int lane_;
  uint64_t policy_;
  uint32_t filling_ = 0, reading_ = 0;  ///< places in the ring
  const uint8_t *codes_ = nullptr, *scales_ = nullptr, *zeros_ = nullptr;
};

}  // namespace billfish::cuda
