// 16 rows of a unit that go straight from global memory to a warp's registers, and their product with a row of x in shared memory.
//
// A unit is asked for long before it is multiplied; its registers are free for the next one as soon as it is.
#pragma once

#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/weight.cuh"

namespace billfish::cuda {

inline constexpr int kRowBytes = kUnitK * 2;  // of x in a unit

/// Row block `block` of a unit: this lane's codes and the scales of its rows.
struct HeldUnit {
  uint32_t words[kUnitBlocks * kBlockWords];
  RowScales scales;
};

/// Where a lane finds its part of a unit and of those behind it.
class UnitPlace {
 public:
  UnitPlace() = default;
  __device__ __forceinline__ UnitPlace(const uint8_t* unit, int block, int lane) {
    codes_ = unit + (block * 32 + lane) * 16;
    const int rows = block * 8 + lane / 4;
    scales_ = unit + kLayout.code_bytes() + rows * RowScales::kScaleBytes;
    zeros_ = unit + kLayout.code_bytes() + kLayout.scale_bytes() + rows * RowScales::kZeroBytes;
  }

  /// The unit `a` units on.
  __device__ __forceinline__ void Load(int a, uint64_t policy, HeldUnit& unit) const {
    LoadOnce<RowScales::kScaleBytes>(scales_ + a * kLayout.unit_bytes(), policy, unit.scales.scales);
    LoadOnce<RowScales::kZeroBytes>(zeros_ + a * kLayout.unit_bytes(), policy, unit.scales.zeros);
#pragma unroll
    for (int i = 0; i < kUnitBlocks * kBlockWords / 4; ++i) {
      const uint4 v = LoadOnce16(codes_ + a * kLayout.unit_bytes() + i * kTileThreads * 16, policy);
      uint32_t* to = unit.words + 4 * i;
      to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
  }
  __device__ __forceinline__ void Advance(int units) {
    codes_ += units * kLayout.unit_bytes();
    scales_ += units * kLayout.unit_bytes();
    zeros_ += units * kLayout.unit_bytes();
  }

 private:
  const uint8_t *codes_ = nullptr, *scales_ = nullptr, *zeros_ = nullptr;
};

/// sums += W x^T of the 16 rows, x in every column; `from`: the shared address of the unit's first column of x, 16-byte aligned.
__device__ __forceinline__ void Multiply(const HeldUnit& unit, uint32_t from, int lane, float (&sums)[4]) {
  constexpr int kGroup = kLayout.group == 0 ? kUnitK : kLayout.group;
  float part[4] = {};
#pragma unroll
  for (int block = 0; block < kUnitBlocks; ++block) {
#pragma unroll
    for (int pair = 0; pair < kPlanes / 2; ++pair) {
      uint32_t v[4];
      LoadMatrices(from + lane / 8 * 16 + block * 128 + pair * 64, v);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int plane = 2 * pair + half;
        uint32_t a[4];
        DecodePlane(unit.words + block * kBlockWords, unit.scales, block, plane, a);
        Mma(kScaleOnAccumulator ? part : sums, a, v + 2 * half);
        if constexpr (kScaleOnAccumulator) {
          const int k = block * kBlockK + plane * 16 + 16;
          if (k % kGroup == 0) {
            const float low = AccumulatorScale(unit.scales, 0, k / kGroup - 1), high = AccumulatorScale(unit.scales, 1, k / kGroup - 1);
            sums[0] += low * part[0], sums[1] += low * part[1], sums[2] += high * part[2], sums[3] += high * part[3];
            part[0] = part[1] = part[2] = part[3] = 0;
          }
        }
      }
    }
  }
}

}  // namespace billfish::cuda
