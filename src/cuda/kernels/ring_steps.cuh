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

  /// `codes`: where the lane's first codes are. `rows`, `zeros`: what ScalesFrom and ZerosFrom say.
  __device__ __forceinline__ RingStep(uint32_t codes, uint32_t rows, uint32_t zeros)
      : codes_(codes), rows_(codes + rows), zeros_(codes + zeros) {}

  /// From a lane's first codes to the scales and the zero points of its first rows.
  static __device__ __forceinline__ uint32_t ScalesFrom(int lane) { return kScales + lane / 4 * RowScales::kScaleBytes - lane * 16; }
  static __device__ __forceinline__ uint32_t ZerosFrom(int lane) { return kZeros + lane / 4 * RowScales::kZeroBytes - lane * 16; }

  /// The words of a lane in block `block` of unit u.
  __device__ __forceinline__ void LoadWords(int u, int block, int rb, uint32_t (&words)[kBlockWords]) const {
#pragma unroll
    for (int i = 0; i < kSlabsOfBlock; ++i) {
      const int slab = (u * kUnitBlocks + block) * kSlabsOfBlock + i;
      LoadShared<16>(codes_ + (slab * kRowBlocks + rb) * 512, words + 4 * i);
    }
  }

  __device__ __forceinline__ RowScales LoadScales(int u, int rb) const {
    RowScales out{};
    if constexpr (kScaleBytes > 0)
      LoadShared<RowScales::kScaleBytes>(rows_ + u * kScaleBytes + rb * 8 * RowScales::kScaleBytes, out.scales);
    if constexpr (kZeroBytes > 0) LoadShared<RowScales::kZeroBytes>(zeros_ + u * kZeroBytes + rb * 8 * RowScales::kZeroBytes, out.zeros);
    return out;
  }

 private:
  uint32_t codes_, rows_, zeros_;
};

template <int kRowBlocks, int kStages, int kTeam = 1>
class RingSteps {
 public:
  using Step = RingStep<kRowBlocks>;
  static constexpr int kSharedBytes = kStages * Step::kBytes;

  /// `ring`: kSharedBytes of this warp.
  __device__ __forceinline__ RingSteps(const StepWalk<kRowBlocks, kTeam>& walk, const uint8_t* ring, int lane)
      : walk_(walk),
        ring_(SharedAddress(ring) + lane * 16),
        lane_(lane),
        scales_from_(Step::ScalesFrom(lane)),
        zeros_from_(Step::ZerosFrom(lane)),
        policy_(EvictFirst()) {
    asm volatile("" : "+r"(ring_), "+r"(scales_from_), "+r"(zeros_from_));  // to be kept, not computed again for each step
    read_ = ring_ + (kStages - 1) * Step::kBytes;
    Settle();
  }

  /// As many steps as there is room for, kStages - 1: the kernel before may still run. Or some of them, kFirst .. kEnd - 1.
  template <int kFirst = 0, int kEnd = kStages - 1>
  __device__ __forceinline__ void Begin() {
#pragma unroll
    for (int s = kFirst; s < kEnd; ++s) CopyNext(ring_ + s * Step::kBytes);
  }

  /// The next step, until the next call.
  __device__ __forceinline__ Step Take() {
    WaitCopies<kStages - 2>();
    __syncwarp();
    CopyNext(read_);
    read_ = read_ == ring_ + (kStages - 1) * Step::kBytes ? ring_ : read_ + Step::kBytes;
    return Step(read_, scales_from_, zeros_from_);
  }

 private:
  static constexpr int kScaleChunks = kStepUnits * Step::kScaleBytes / 16, kZeroChunks = kStepUnits * Step::kZeroBytes / 16;
  static_assert(Step::kScaleBytes % 16 == 0 && Step::kZeroBytes % 16 == 0 && kScaleChunks <= 32 && kZeroChunks <= 32);

  // Begins to copy the next step, if there is one. A group of copies is committed in any case: WaitCopies counts them.
  __device__ __forceinline__ void CopyNext(uint32_t place) {
    if (!walk_.Done()) {
#pragma unroll
      for (int u = 0; u < kStepUnits; ++u) {
#pragma unroll
        for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
          for (int rb = 0; rb < kRowBlocks; ++rb) {
            CopyAsync16(place + ((u * kSlabs + slab) * kRowBlocks + rb) * 512,
                        codes_ + u * kLayout.unit_bytes() + slab * kSlabBytes + rb * 512, policy_);
          }
        }
      }
      if (lane_ < kScaleChunks) CopyAsync16(place + Step::kScales, codes_ + scales_, policy_);
      if (lane_ < kZeroChunks) CopyAsync16(place + Step::kZeros, codes_ + zeros_, policy_);
      codes_ += kStepBytes;
      if (!walk_.Advance()) {
        walk_.NextBlock();
        Settle();
      }
    }
    CommitCopies();
  }

  // Where this lane's chunks of the walk's step lie.
  __device__ __forceinline__ void Settle() {
    const int block = walk_.FirstBlock();
    const int codes = block * 512 + lane_ * 16;
    codes_ = walk_.Unit() + codes;
    constexpr int kScalesAt = kLayout.code_bytes(), kZerosAt = kScalesAt + kLayout.scale_bytes();
    if constexpr (kScaleChunks > 0) scales_ = ChunkOf<Step::kScaleBytes>(kScalesAt + block * 8 * RowScales::kScaleBytes) - codes;
    if constexpr (kZeroChunks > 0) zeros_ = ChunkOf<Step::kZeroBytes>(kZerosAt + block * 8 * RowScales::kZeroBytes) - codes;
  }

  // Of kBytes in each unit of the step, from `first` on, the lane's 16.
  template <int kBytes>
  __device__ __forceinline__ int ChunkOf(int first) const {
    constexpr int kChunks = kBytes / 16;
    return first + lane_ / kChunks * kLayout.unit_bytes() + lane_ % kChunks * 16;
  }

  StepWalk<kRowBlocks, kTeam> walk_;
  uint32_t ring_;  ///< with the place of the lane's codes, like read_
  int lane_;
  uint32_t scales_from_, zeros_from_;
  uint64_t policy_;
  uint32_t read_;  ///< the place that was read last, and is free again
  const uint8_t* codes_ = nullptr;
  uint32_t scales_ = 0, zeros_ = 0;  ///< how far behind codes_
};

}  // namespace billfish::cuda
