// A step of a panel of a weight by one row of x, on the tensor cores.
//
// With one step at a time a warp would wait for one thing after the other: everything that the step reads is asked for first.
#pragma once

#include "cuda/kernels/grouped_step.cuh"

namespace billfish::cuda {

inline constexpr int kRowBlocks = kPanelRows / 16;
using PanelStep = GroupedStep<kRowBlocks>;
static_assert(PanelStep::kUnits == 1);

class PanelSums {
 public:
  /// sums += W x^T of one step. x: shared address of the row's columns of the step, and 16 bytes more for each eight lanes before this one.
  __device__ __forceinline__ void AddStep(const PanelStep& step, uint32_t x) {
    constexpr int kGroup = kLayout.group == 0 ? kUnitK : kLayout.group;
    uint32_t words[kUnitBlocks][kRowBlocks][kBlockWords], b[kUnitBlocks][kPlanes / 2][4];
    RowScales scales[kRowBlocks];
#pragma unroll
    for (int i = 0; i < kUnitBlocks; ++i) {
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) step.LoadWords(0, i, rb, words[i][rb]);
    }
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) scales[rb] = step.LoadScales(0, rb);
#pragma unroll
    for (int i = 0; i < kUnitBlocks * kPlanes / 2; ++i) LoadMatrices(x + i * 64, b[i / (kPlanes / 2)][i % (kPlanes / 2)]);
    float part[kRowBlocks][4] = {};
#pragma unroll
    for (int block = 0; block < kUnitBlocks; ++block) {
#pragma unroll
      for (int plane = 0; plane < kPlanes; ++plane) {
        const uint32_t* row = b[block][plane / 2] + plane % 2 * 2;
        const int k = block * kBlockK + plane * 16 + 16, group = k / kGroup - 1;
#pragma unroll
        for (int rb = 0; rb < kRowBlocks; ++rb) {
          uint32_t a[4];
          DecodePlane(words[block][rb], scales[rb], block, plane, a);
          if constexpr (kScaleOnAccumulator) {
            Mma(part[rb], a, row);
            if (k % kGroup != 0) continue;
            sums_[rb][0] = fmaf(AccumulatorScale(scales[rb], 0, group), part[rb][0], sums_[rb][0]);
            sums_[rb][2] = fmaf(AccumulatorScale(scales[rb], 1, group), part[rb][2], sums_[rb][2]);
#pragma unroll
            for (int j = 0; j < 4; ++j) part[rb][j] = 0;
          } else {
            Mma(sums_[rb], a, row);
          }
        }
      }
    }
  }

  /// A pair for rows q and q + 8 of each row block (gate and up), in the order of row blocks and q. Lanes of a q have the same sums.
  __device__ __forceinline__ void Store(float2* to, int lane) const {
    if (lane % 4 != 0) return;
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) to[rb * 8 + lane / 4] = float2{sums_[rb][0], sums_[rb][2]};
  }

 private:
  float sums_[kRowBlocks][4] = {};
};

}  // namespace billfish::cuda
