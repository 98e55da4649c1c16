// What a warpgroup does with a stage of shared memory on sm_90a: wgmma with the decoded weight in registers, whose next fragments are
// decoded while the tensor cores work on the step before.
//
// Layouts whose scales belong on the accumulator go through a stage block of rows by block of rows: they sum one group in `part`, wait, and
// add scale * part to `sum`; the other warpgroups keep the tensor cores busy. No wgmma is in flight across the end of a stage's loop body:
// the compiler would put every one of them behind a wait.
#pragma once

#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/tile_shape.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace billfish::cuda {

class GroupStage {
  static constexpr int kUnitSteps = kLayout.unit_k() / 16, kSteps = kStageUnits * kUnitSteps;  // k16 steps

  // An element is a block of rows and a step, blocks outside; or, where blocks share an accumulator's life, a step of all blocks.
  static constexpr int kParts = kScaleOnAccumulator ? kM16 : 1, kTogether = kM16 / kParts;
  static constexpr int kElements = kParts * kSteps;

 public:
  struct Operands {
    uint32_t a[2][kTogether][4];
    uint32_t words[kTogether][kBlockWords];
    RowScales scales[kTogether];
  };

  __device__ __forceinline__ GroupStage() : lane_(threadIdx.x % 32), warp_(threadIdx.x / 32 % 4), group_(threadIdx.x / kTileThreads) {}

  /// Of this warp's sums in the tile.
  __device__ __forceinline__ int FirstRow() const { return group_ * kM16 * kPanelRows + warp_ * 16; }

  /// Scales and words of the element, if they are not those that an earlier one has loaded already.
  __device__ __forceinline__ void Load(Operands& o, const uint8_t* stage, int element) const {
    constexpr int kStepsPerLoad = 4 / kPlaneWords;
    const int first = element / kSteps, step = element % kSteps;
#pragma unroll
    for (int t = 0; t < kTogether; ++t) {
      const uint8_t* unit = stage + kBlocks * kXBlockBytes + ((group_ * kM16 + first + t) * kStageUnits + step / kUnitSteps) * kUnitBytes;
      if (step % kUnitSteps == 0) o.scales[t] = LoadRowScales(unit, warp_, lane_ / 4);
      if (step % kStepsPerLoad != 0) continue;
      const int load = step % kPlanes / kStepsPerLoad;
      const uint8_t* block = unit + step % kUnitSteps / kPlanes * kLayout.block_bytes();
      const uint4 v = *reinterpret_cast<const uint4*>(block + (load * kTileThreads + warp_ * 32 + lane_) * 16);
      uint32_t* words = o.words[t] + 4 * load;
      words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
    }
  }
  __device__ __forceinline__ static void Decode(Operands& o, int element, int buffer) {
    const int step = element % kUnitSteps;
#pragma unroll
    for (int t = 0; t < kTogether; ++t) DecodePlane(o.words[t], o.scales[t], step / kPlanes, step % kPlanes, o.a[buffer][t]);
  }

  /// sum += W x^T of a stage, and the first element of `next` into the operands, which held that of this stage. `begun` runs once, in the
  /// shadow of the first wgmma; `turn` before the first read from `next`, which after the last stage may be any: it is never used.
  template <int kColumns, class Begun, class Turn>
  __device__ __forceinline__ void Multiply(Operands& o, const uint8_t* stage, const uint8_t* next, float (&sum)[kM16][kColumns][4],
                                           const Begun& begun, const Turn& turn) const {
    const uint64_t x = SwizzledDescriptor(SharedAddress(stage));
    constexpr int kGroupSteps = kScaleOnAccumulator ? kLayout.group / 16 : 1;
    float part[kColumns][4];
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const int s = e % kSteps, m = e / kSteps;
      const bool last = e == kElements - 1, end_of_group = kScaleOnAccumulator && s % kGroupSteps == kGroupSteps - 1;
      const uint64_t columns = x + (s / kPlanes * kXBlockBytes + s % kPlanes * 32) / 16;
      FenceRegisters();
      if constexpr (kScaleOnAccumulator) {
        GroupMma(part, o.a[e % 2][0], columns, s % kGroupSteps != 0);
      } else {
#pragma unroll
        for (int t = 0; t < kTogether; ++t) GroupMma(sum[t], o.a[e % 2][t], columns, 1);
      }
      CommitMma();
      if (e == 0) begun();
      if (e > 0 && !(kScaleOnAccumulator && s % kGroupSteps == 0)) WaitMma<1>();  // the next decode takes the registers of the wgmma before
      if (last) turn();
      float low = 0, high = 0;
      if (end_of_group)
        low = AccumulatorScale(o.scales[0], 0, s % kUnitSteps / kGroupSteps),
        high = AccumulatorScale(o.scales[0], 1, s % kUnitSteps / kGroupSteps);
      Load(o, last ? next : stage, last ? 0 : e + 1);
      Decode(o, last ? 0 : e + 1, (e + 1) % 2);
      if (last || end_of_group) WaitMma<0>();
      if constexpr (kScaleOnAccumulator) {
        if (end_of_group) {
#pragma unroll
          for (int n = 0; n < kColumns; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[m][n][i] = fmaf(i < 2 ? low : high, part[n][i], sum[m][n][i]);
        }
      }
    }
  }

 private:
  int lane_, warp_, group_;
};

}  // namespace billfish::cuda
