// The steps of a warp in registers, where x needs the shared memory. The compiler gives all loads of a loop one scoreboard, so that waiting
// for the oldest is waiting for all: what is under way is less than the registers could hold.
#pragma once

#include "cuda/kernels/step_walk.cuh"

namespace billfish::cuda {

/// A lane's part of a step.
template <int kRowBlocks>
struct RegisterStep {
  uint4 codes[kStepUnits][kSlabs][kRowBlocks];
  RowScales scales[kStepUnits][kRowBlocks];

  /// The words of a lane in block `block` of unit u.
  __device__ __forceinline__ void LoadWords(int u, int block, int rb, uint32_t (&words)[kBlockWords]) const {
#pragma unroll
    for (int i = 0; i < kSlabsOfBlock; ++i) {
      const uint4 v = codes[u][block * kSlabsOfBlock + i][rb];
      words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
    }
  }

  __device__ __forceinline__ const RowScales& LoadScales(int u, int rb) const { return scales[u][rb]; }
};

template <int kWarps, int kRowBlocks, int kStages>
class RegisterSteps {
 public:
  using Step = RegisterStep<kRowBlocks>;
  static constexpr int kSharedBytes = 0;
  static_assert(kStages <= 4);

  __device__ __forceinline__ RegisterSteps(const LinearDecodeArgs& args, const Slice& slice, const uint8_t*, int warp, int lane)
      : walk_(args, slice, warp), lane_(lane), policy_(EvictFirst()) {
    Settle();
  }

  /// One step: x is not to queue behind all that are wanted.
  __device__ __forceinline__ void Begin() { Load(steps_[0]); }
  __device__ __forceinline__ void BeginRest() {
#pragma unroll
    for (int s = 1; s < kStages; ++s) Load(steps_[s]);
  }

  /// Calls take(step) for the steps of this warp from `step` to `count`, and leaves `step` behind them. Registers have no index: each place
  /// has code of its own, and an item may begin with any of them.
  template <class Take>
  __device__ __forceinline__ void ForEach(int& step, int count, Take take) {
    const auto take_from = [&](Step& held, int next) {
      take(held);
      Load(held);
      step += kWarps;
      place_ = next;
      return step < count;
    };
    while (step < count) {
      switch (place_) {
        case 0:
          if (!take_from(steps_[0], 1 % kStages)) break;
          [[fallthrough]];
        case 1:
          if constexpr (kStages > 1) {
            if (!take_from(steps_[1], 2 % kStages)) break;
          }
          [[fallthrough]];
        case 2:
          if constexpr (kStages > 2) {
            if (!take_from(steps_[2], 3 % kStages)) break;
          }
          [[fallthrough]];
        default:
          if constexpr (kStages > 3) take_from(steps_[3], 0);
      }
    }
  }

 private:
  // The next step; leaves `held` as it is once there is none.
  __device__ __forceinline__ void Load(Step& held) {
    if (walk_.Done()) return;
#pragma unroll
    for (int u = 0; u < kStepUnits; ++u) {
      const int at = u * kLayout.unit_bytes();
#pragma unroll
      for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
        for (int rb = 0; rb < kRowBlocks; ++rb) held.codes[u][slab][rb] = LoadOnce16(codes_ + at + slab * kSlabBytes + rb * 512, policy_);
      }
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
        LoadOnce<RowScales::kScaleBytes>(scales_ + at + rb * 8 * RowScales::kScaleBytes, policy_, held.scales[u][rb].scales);
        LoadOnce<RowScales::kZeroBytes>(zeros_ + at + rb * 8 * RowScales::kZeroBytes, policy_, held.scales[u][rb].zeros);
      }
    }
    codes_ += kWarps * kStepBytes, scales_ += kWarps * kStepBytes, zeros_ += kWarps * kStepBytes;
    if (!walk_.Advance()) Settle();
  }

  // Where this lane's part of the walk's step lies.
  __device__ __forceinline__ void Settle() {
    const int block = walk_.FirstBlock(), row = block * 8 + lane_ / 4;
    const uint8_t* from = walk_.Unit();
    codes_ = from + block * 512 + lane_ * 16;
    scales_ = from + kLayout.code_bytes() + row * RowScales::kScaleBytes;
    zeros_ = from + kLayout.code_bytes() + kLayout.scale_bytes() + row * RowScales::kZeroBytes;
  }

  StepWalk<kWarps, kRowBlocks> walk_;
  int lane_;
  uint64_t policy_;
  int place_ = 0;
  Step steps_[kStages];
  const uint8_t *codes_ = nullptr, *scales_ = nullptr, *zeros_ = nullptr;
};

}  // namespace billfish::cuda
