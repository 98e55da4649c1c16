// What a warpgroup does with a stage of shared memory on sm_90a: wgmma with the decoded weight in registers, whose next fragments are
// decoded while the tensor cores work on the step before, and whose codes are loaded a step before that.
//
// Layouts whose scales belong on the accumulator go through a stage block of rows by block of rows: they sum one group in `part`, wait, and
// add scale * part to `sum`; the other warpgroups keep the tensor cores busy. No wgmma is in flight across the end of a stage's loop body:
// the compiler would put every one of them behind a wait.
#pragma once

#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/tile_feed.cuh"
#include "cuda/kernels/tile_shape.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace billfish::cuda {

/// kRows blocks of 64 rows of a warpgroup: those of the tile's panels group + t * kRowGroups.
template <int kRows>
class GroupStage {
  static constexpr int kUnitSteps = kLayout.unit_k() / 16, kSteps = kStageUnits * kUnitSteps;  // k16 steps

  // An element is a block of rows and a step: blocks inside, or outside where they take turns with one set of partial sums.
  static constexpr int kElements = kRows * kSteps;
  __device__ static constexpr int BlockOf(int element) { return kScaleOnAccumulator ? element / kSteps : element % kRows; }
  __device__ static constexpr int StepOf(int element) { return kScaleOnAccumulator ? element % kSteps : element / kRows; }
  static constexpr int kGroupSteps = kScaleOnAccumulator ? kLayout.group / 16 : 1;
  // Elements whose wgmmas are started together: saves waits and fences. Blocks that take turns step by step have no registers for it.
  static constexpr int kBatch = kScaleOnAccumulator && kGroupSteps > 1 ? 2 : 1;
  static constexpr int kHeld = kScaleOnAccumulator ? 1 : kRows;  // blocks whose codes are in registers

 public:
  __device__ __forceinline__ GroupStage() : lane_(threadIdx.x % 32), warp_(threadIdx.x / 32 % 4), group_(threadIdx.x / kTileThreads) {}

  /// sum += W x^T of `steps` stages from `turn` on, which go through the slots at `shared`. This warp waits for each and gives it back.
  template <int kColumns>
  __device__ __forceinline__ void MultiplyStages(const LinearTileArgs& args, const uint8_t* shared, StageBarriers& barriers,
                                                 StageTurn& turn, int steps, float (&sum)[kRows][kColumns][4]) const {
    const auto slot = [&](const StageTurn& t) { return shared + t.slot * args.stage_bytes; };
    Operands operands;
    AwaitFull(barriers, turn);
    Begin(operands, slot(turn));
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      StageTurn next = turn;
      next.Advance(args.stages);
      const bool more = step + 1 < steps;
      Multiply(operands, slot(turn), slot(more ? next : turn), sum, [&] {
        if (more) AwaitFull(barriers, next);
      });
      __syncwarp();
      if (threadIdx.x % 32 == 0) Arrive(SharedAddress(&barriers.empty[turn.slot]));
      turn = next;
    }
  }

 private:
  struct Operands {
    uint32_t a[2][kBatch][4];
    uint32_t words[kHeld][kBlockWords];
    RowScales scales[kHeld], next_scales[kHeld];
  };

  /// The first two batches of a stage, before the first Multiply.
  __device__ __forceinline__ void Begin(Operands& o, const uint8_t* stage) const {
    Load(o, stage, 0);
    Decode(o, 0, 0);
    Load(o, stage, kBatch);
  }

  /// sum += W x^T of a stage, and the first two batches of `next` into the operands, which held those of this stage. `turn` runs before
  /// the first read from `next`, which after the last stage may be any: it is never used.
  template <int kColumns, class Turn>
  __device__ __forceinline__ void Multiply(Operands& o, const uint8_t* stage, const uint8_t* next, float (&sum)[kRows][kColumns][4],
                                           const Turn& turn) const {
    const uint64_t x = SwizzledDescriptor(SharedAddress(stage));
    float part[kColumns][4];
#pragma unroll
    for (int e = 0; e < kElements; e += kBatch) {
      const int m = BlockOf(e), last_step = StepOf(e + kBatch - 1), group = last_step % kUnitSteps / kGroupSteps;
      const bool first_of_group = kScaleOnAccumulator && StepOf(e) % kGroupSteps == 0;
      const bool last_of_group = kScaleOnAccumulator && last_step % kGroupSteps == kGroupSteps - 1;
      FenceRegisters();
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int s = StepOf(e + i);
        const uint64_t columns = x + (s / kPlanes * kXBlockBytes + s % kPlanes * 32) / 16;
        if constexpr (kScaleOnAccumulator) {
          GroupMma(part, o.a[e / kBatch % 2][i], columns, s % kGroupSteps != 0);
        } else {
          GroupMma(sum[m], o.a[e / kBatch % 2][i], columns, 1);
        }
      }
      CommitMma();
      if (e > 0 && !first_of_group) WaitMma<1>();  // the next decode takes the registers of the wgmma before
      float low = 0, high = 0;
      if (last_of_group) low = AccumulatorScale(o.scales[0], 0, group), high = AccumulatorScale(o.scales[0], 1, group);
      Decode(o, (e + kBatch) % kElements, (e / kBatch + 1) % 2);
      if (e == kElements - 2 * kBatch) turn();
      Load(o, e + 2 * kBatch < kElements ? stage : next, (e + 2 * kBatch) % kElements);
      if (e == kElements - kBatch || last_of_group) WaitMma<0>();
      if constexpr (kScaleOnAccumulator) {
        if (last_of_group) {
#pragma unroll
          for (int n = 0; n < kColumns; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[m][n][i] = fmaf(i < 2 ? low : high, part[n][i], sum[m][n][i]);
        }
      }
    }
  }

  /// A batch of elements from `first` on.
  __device__ __forceinline__ void Load(Operands& o, const uint8_t* stage, int first) const {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) LoadElement(o, stage, first + i);
  }
  __device__ __forceinline__ static void Decode(Operands& o, int first, int buffer) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) DecodeElement(o, first + i, o.a[buffer][i]);
  }

  /// Words and scales of the element, if they are not those that an earlier one has loaded already. Words of the element before are used
  /// up.
  __device__ __forceinline__ void LoadElement(Operands& o, const uint8_t* stage, int element) const {
    constexpr int kStepsPerLoad = 4 / kPlaneWords;
    const int step = StepOf(element), m = BlockOf(element), held = m % kHeld;
    const uint8_t* unit = stage + kBlocks * kXBlockBytes + ((group_ + m * kRowGroups) * kStageUnits + step / kUnitSteps) * kUnitBytes;
    if (step % kUnitSteps == 0) o.next_scales[held] = LoadRowScales(unit, warp_, lane_ / 4);
    if (step % kStepsPerLoad != 0) return;
    const int load = step % kPlanes / kStepsPerLoad;
    const uint8_t* block = unit + step % kUnitSteps / kPlanes * kLayout.block_bytes();
    const uint4 v = *reinterpret_cast<const uint4*>(block + (load * kTileThreads + warp_ * 32 + lane_) * 16);
    uint32_t* words = o.words[held] + 4 * load;
    words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
  }
  __device__ __forceinline__ static void DecodeElement(Operands& o, int element, uint32_t (&a)[4]) {
    const int step = StepOf(element) % kUnitSteps, held = BlockOf(element) % kHeld;
    if (step == 0) o.scales[held] = o.next_scales[held];
    DecodePlane(o.words[held], o.scales[held], step / kPlanes, step % kPlanes, a);
  }

  int lane_, warp_, group_;
};

}  // namespace billfish::cuda
