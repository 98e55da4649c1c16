// Steps of a weight, which the warps of the kernels w4a16_grouped_stream and w4a16_token_moe take at a time: through a ring in shared
// memory and the tensor cores.
//
// The second unit of the last step along K may not exist: it lies behind the panel, in the next one or in the padding of the weight's
// memory, and meets columns of x that are zero.
#pragma once

#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/weight.cuh"
#include "cuda/moe_args.h"

namespace billfish::cuda {

/// A step of kRowBlocks row blocks in shared memory, as a lane sees it: for each unit [slab][row block][lane] 16 bytes of codes, then for
/// each unit the scales of these row blocks, then for each unit their zero points.
template <int kRowBlocks>
class GroupedStep {
 public:
  static constexpr int kUnits = GroupedStepUnits(kLayout, kRowBlocks), kColumns = kUnits * kUnitK;
  static constexpr int kSlabBytes = kTileThreads * 16, kSlabs = kLayout.code_bytes() / kSlabBytes, kSlabsOfBlock = kSlabs / kUnitBlocks;
  static constexpr int kScaleBytes = kRowBlocks * 8 * RowScales::kScaleBytes, kZeroBytes = kRowBlocks * 8 * RowScales::kZeroBytes;
  static constexpr int kScales = kUnits * kSlabs * kRowBlocks * 512, kZeros = kScales + kUnits * kScaleBytes;
  static constexpr int kBytes = kZeros + kUnits * kZeroBytes;
  static_assert(kScaleBytes % 16 == 0 && kZeroBytes % 16 == 0);

  /// at: shared address of the step and 16 bytes more for each lane before this one; scales: of those of this lane's first rows.
  __device__ __forceinline__ GroupedStep(uint32_t at, uint32_t scales) : at_(at), scales_(scales) {}

  /// The words of a lane in block `block` of unit u.
  __device__ __forceinline__ void LoadWords(int u, int block, int rb, uint32_t (&words)[kBlockWords]) const {
#pragma unroll
    for (int i = 0; i < kSlabsOfBlock; ++i) {
      const int slab = (u * kUnitBlocks + block) * kSlabsOfBlock + i;
      LoadShared<16>(at_ + (slab * kRowBlocks + rb) * 512, words + 4 * i);
    }
  }

  __device__ __forceinline__ RowScales LoadScales(int u, int rb) const {
    RowScales out{};
    constexpr int kScale = RowScales::kScaleBytes, kZero = RowScales::kZeroBytes;
    if constexpr (kScale > 0) LoadShared<kScale>(scales_ + u * kScaleBytes + rb * 8 * kScale, out.scales);
    if constexpr (kZero > 0) {
      // Scales and zero points of a row have different sizes.
      const uint32_t zeros = kZero == kScale ? scales_ : scales_ - threadIdx.x % 32 / 4 * (kScale - kZero);
      LoadShared<kZero>(zeros + kZeros - kScales + u * kZeroBytes + rb * 8 * kZero, out.zeros);
    }
    return out;
  }

 private:
  uint32_t at_, scales_;
};

template <int kRowBlocks>
__device__ __forceinline__ int StepsOfItem(const GroupedDecodeArgs& args) {
  constexpr int kUnits = GroupedStep<kRowBlocks>::kUnits;
  return (args.units + kUnits - 1) / kUnits;
}

/// Steps of a warp that follow each other along K in the same rows of one expert.
struct Run {
  const uint8_t* unit = nullptr;  ///< the first one of these rows' panel
  int block = 0;                  ///< the first 16-row block of the panel
  int step = 0, steps = 0;
};

/// A warp's steps through a ring of its own in shared memory, kStages - 1 of them on their way: of each run every kStride-th. Walk: bool
/// Next(Run&), with the number of the warp's own steps.
template <int kRowBlocks, int kStages, class Walk, int kStride = 1>
class WarpRing {
 public:
  using Step = GroupedStep<kRowBlocks>;
  static constexpr int kBytes = kStages * Step::kBytes;

  __device__ __forceinline__ WarpRing(const Walk& walk, const uint8_t* ring, int lane)
      : walk_(walk),
        lane_(lane),
        policy_(EvictFirst()),
        first_(SharedAddress(ring) + lane * 16),
        place_(first_ + (kStages - 1) * Step::kBytes),
        to_scales_(Step::kScales + lane / 4 * RowScales::kScaleBytes - lane * 16) {}

  __device__ __forceinline__ void Begin() {
#pragma unroll 1
    for (int s = 0; s < kStages - 1; ++s) CopyNext(first_ + s * Step::kBytes);
  }

  /// The next step, once it is there. The one before is gone: its place is filled.
  __device__ __forceinline__ Step Next() {
    WaitCopies<kStages - 2>();
    __syncwarp();
    CopyNext(place_);
    place_ = place_ == first_ + (kStages - 1) * Step::kBytes ? first_ : place_ + Step::kBytes;
    return Step(place_, place_ + to_scales_);
  }

 private:
  static constexpr int kScaleChunks = Step::kUnits * Step::kScaleBytes / 16, kZeroChunks = Step::kUnits * Step::kZeroBytes / 16;

  // Begins to copy the next step, if there is one. A group of copies is committed in any case: WaitCopies counts them.
  __device__ __forceinline__ void CopyNext(uint32_t to) {
    if (left_ > 0 || Enter()) {
#pragma unroll
      for (int u = 0; u < Step::kUnits; ++u) {
#pragma unroll
        for (int slab = 0; slab < Step::kSlabs; ++slab) {
#pragma unroll
          for (int rb = 0; rb < kRowBlocks; ++rb) {
            CopyAsync16(to + ((u * Step::kSlabs + slab) * kRowBlocks + rb) * 512,
                        codes_ + u * kLayout.unit_bytes() + slab * Step::kSlabBytes + rb * 512, policy_);
          }
        }
      }
      CopyChunks<kScaleChunks>(to + Step::kScales, scales_);
      CopyChunks<kZeroChunks>(to + Step::kZeros, zeros_);
      --left_;
      Advance(kStride);
    }
    CommitCopies();
  }

  // A unit's chunks are its own; a lane knows its place in the first 32 of the step.
  template <int kChunks>
  __device__ __forceinline__ void CopyChunks(uint32_t to, const uint8_t* from) const {
    if constexpr (kChunks > 0 && kChunks <= 32) {
      if (lane_ < kChunks) CopyAsync16(to, from, policy_);
    } else if constexpr (kChunks > 32) {
      static_assert(Step::kUnits == 1 && kChunks % 32 == 0);
#pragma unroll
      for (int i = 0; i < kChunks / 32; ++i) CopyAsync16(to + i * 512, from + i * 512, policy_);
    }
  }

  // The next run; false if there is none.
  __device__ __forceinline__ bool Enter() {
    Run run;
    if (!walk_.Next(run)) return false;
    left_ = run.steps;
    codes_ = run.unit + run.block * 512 + lane_ * 16;
    const uint8_t *scales = run.unit + kLayout.code_bytes(), *zeros = scales + kLayout.scale_bytes();
    if constexpr (kScaleChunks > 0) scales_ = ChunkOf<Step::kScaleBytes>(scales + run.block * 8 * RowScales::kScaleBytes);
    if constexpr (kZeroChunks > 0) zeros_ = ChunkOf<Step::kZeroBytes>(zeros + run.block * 8 * RowScales::kZeroBytes);
    Advance(run.step);
    return true;
  }

  __device__ __forceinline__ void Advance(int steps) {
    const int bytes = steps * Step::kUnits * kLayout.unit_bytes();
    codes_ += bytes;
    if constexpr (kScaleChunks > 0) scales_ += bytes;
    if constexpr (kZeroChunks > 0) zeros_ += bytes;
  }

  // Of kOfUnit bytes in each unit of the step, the lane's 16.
  template <int kOfUnit>
  __device__ __forceinline__ const uint8_t* ChunkOf(const uint8_t* first) const {
    constexpr int kChunks = kOfUnit / 16;
    return first + lane_ / kChunks * kLayout.unit_bytes() + lane_ % kChunks * 16;
  }

  Walk walk_;
  int lane_;
  uint64_t policy_;
  int left_ = 0;            ///< steps of the run
  uint32_t first_, place_;  ///< the ring, and in it the step that was taken last, with 16 bytes more for each lane before this one
  uint32_t to_scales_;      ///< from there
  const uint8_t *codes_ = nullptr, *scales_ = nullptr, *zeros_ = nullptr;
};

/// acc += W x^T of one step. x: for each n8 tile the lane's row at its chunk of the step's first 32 columns.
template <int kActive, int kRowBlocks, int kTiles>
__device__ __forceinline__ void MultiplyStep(const GroupedStep<kRowBlocks>& step, const uint32_t (&x)[kTiles],
                                             float (&acc)[kRowBlocks][kTiles][4]) {
  constexpr int kGroup = kLayout.group == 0 ? kUnitK : kLayout.group;
  float part[kRowBlocks][kActive][4];
#pragma unroll
  for (int u = 0; u < GroupedStep<kRowBlocks>::kUnits; ++u) {
    RowScales scales[kRowBlocks];
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) scales[rb] = step.LoadScales(u, rb);
#pragma unroll
    for (int block = 0; block < kUnitBlocks; ++block) {
      uint32_t words[kRowBlocks][kBlockWords];
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) step.LoadWords(u, block, rb, words[rb]);
      uint32_t b[2][kActive][2];
#pragma unroll
      for (int plane = 0; plane < kPlanes; ++plane) {
        const int k = block * kBlockK + plane * 16;
        if (plane % 2 == 0) {
#pragma unroll
          for (int n = 0; n < kActive; ++n) {
            uint32_t v[4];
            LoadMatrices(x[n] + (u * kUnitK + k) * 2, v);
            b[0][n][0] = v[0], b[0][n][1] = v[1], b[1][n][0] = v[2], b[1][n][1] = v[3];
          }
        }
#pragma unroll
        for (int rb = 0; rb < kRowBlocks; ++rb) {
          uint32_t a[4];
          DecodePlane(words[rb], scales[rb], block, plane, a);
#pragma unroll
          for (int n = 0; n < kActive; ++n) {
            if constexpr (kScaleOnAccumulator) {
              if (k % kGroup == 0) part[rb][n][0] = part[rb][n][1] = part[rb][n][2] = part[rb][n][3] = 0;
              Mma(part[rb][n], a, b[plane % 2][n]);
            } else {
              Mma(acc[rb][n], a, b[plane % 2][n]);
            }
          }
        }
        if constexpr (kScaleOnAccumulator) {
          if ((k + 16) % kGroup != 0) continue;
          const int group = k / kGroup;
#pragma unroll
          for (int rb = 0; rb < kRowBlocks; ++rb) {
            const float low = AccumulatorScale(scales[rb], 0, group), high = AccumulatorScale(scales[rb], 1, group);
#pragma unroll
            for (int n = 0; n < kActive; ++n) {
#pragma unroll
              for (int i = 0; i < 4; ++i) acc[rb][n][i] = fmaf(i < 2 ? low : high, part[rb][n][i], acc[rb][n][i]);
            }
          }
        }
      }
    }
  }
}

}  // namespace billfish::cuda
