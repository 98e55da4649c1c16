// y[M,N] = x[M,K] . W[N,K]^T for many rows, on the asynchronous tensor cores of sm_90a.
//
// As w4a16_linear_tile_sm80.cu, but a warpgroup multiplies kM16 blocks of 64 packed rows by all tokens of the tile at once: wgmma with the
// decoded weight in registers and x in shared memory, so that no B fragments are loaded, and decoding runs while the tensor cores work on
// the step before.
//
//   element    one wgmma for each block of rows and 16 columns; while it runs, the fragments of the next element are decoded
//   turn       in the last element of a stage: the copies of the next have arrived and are ordered before wgmma, barrier
//   copies     of stage s + kStages - 2, into the slot of s - 2, during s: the last wgmma of s - 1 may still be reading its own
//
// Layouts whose scales belong on the accumulator go through a stage block of rows by block of rows: they sum one group in `part`, wait, and
// add scale * part to `sum`; the other warpgroup keeps the tensor cores busy. No wgmma is in flight across the end of a stage's loop body:
// the compiler would put every one of them behind a wait.
//
// Limit: tensor cores; x from L2: a tile of 256 x 128 reads 25 KB in 1024 cycles of an SM.
//
// Macros: those of tile_shape.cuh. BF_WARPS_M is 4 times the warpgroups, BF_WARPS_N 1.
#include "cuda/kernels/tile_copy.cuh"
#include "cuda/kernels/tile_store.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace {

using namespace billfish::cuda;

static_assert(!BF_GROUPED && kWarpsM % 4 == 0 && kWarpsN == 1 && kStages >= 3);

class GroupTileKernel {
 public:
  __device__ GroupTileKernel(const LinearTileArgs& args, uint8_t* shared, int32_t* rows)
      : copy_(args, shared, rows),
        shared_(shared),
        lane_(threadIdx.x % 32),
        warp_(threadIdx.x / 32 % 4),
        group_(threadIdx.x / kTileThreads),
        store_(args, shared, group_ * kM16 * kPanelRows + warp_ * 16, 0) {}

  __device__ void Run(const Tile& tile) {
    copy_.FindRows(tile);
    const TileCopy<false>::Sources from = copy_.FindSources(tile);
    const int steps = tile.end_step - tile.first_step;
#pragma unroll 1
    for (int s = 0; s < kStages - 2; ++s) {
      if (s < steps) copy_.CopyStage(tile, from, tile.first_step + s, s);
      CommitCopies();
    }

    Arrive();
    float sum[kM16][kN8][4] = {};
    Operands operands;
    Load(operands, shared_, 0);
    Decode(operands, 0, 0);
    int stage = 0;
    for (int step = 0; step < steps; ++step) {
      const int next = stage == kStages - 1 ? 0 : stage + 1;
      const int ahead = tile.first_step + step + kStages - 2;
      const int free = stage + kStages - 2 < kStages ? stage + kStages - 2 : stage - 2;
      MultiplyStage(operands, shared_ + stage * kStageBytes, shared_ + next * kStageBytes, sum, [&] {
        if (ahead < tile.end_step) copy_.CopyStage(tile, from, ahead, free);
        CommitCopies();
      });
      stage = next;
    }
    WaitCopies<0>();
    __syncthreads();
    store_.Store(tile, sum);
  }

 private:
  static constexpr int kUnitSteps = kLayout.unit_k() / 16, kSteps = kStageUnits * kUnitSteps;  // k16 steps

  // An element is a block of rows and a step, blocks outside; or, where blocks share an accumulator's life, a step of all blocks.
  static constexpr int kParts = kScaleOnAccumulator ? kM16 : 1, kTogether = kM16 / kParts;
  static constexpr int kElements = kParts * kSteps;

  struct Operands {
    uint32_t a[2][kTogether][4];
    uint32_t words[kTogether][kBlockWords];
    RowScales scales[kTogether];
  };

  /// Waits for this thread's copies of the next stage, then for everyone's.
  __device__ __forceinline__ static void Arrive() {
    WaitCopies<kStages - 3>();
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
  }

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

  /// `copy` runs once, in the shadow of the first wgmma. After the last stage what is read from `next` is never used.
  template <class Copy>
  __device__ __forceinline__ void MultiplyStage(Operands& o, const uint8_t* stage, const uint8_t* next, float (&sum)[kM16][kN8][4],
                                                const Copy& copy) const {
    const uint64_t x = SwizzledDescriptor(SharedAddress(stage));
    constexpr int kGroupSteps = kScaleOnAccumulator ? kLayout.group / 16 : 1;
    float part[kN8][4];
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
      if (e == 0) copy();
      if (e > 0 && !(kScaleOnAccumulator && s % kGroupSteps == 0)) WaitMma<1>();  // the next decode takes the registers of the wgmma before
      if (last) Arrive();
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
          for (int n = 0; n < kN8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[m][n][i] = fmaf(i < 2 ? low : high, part[n][i], sum[m][n][i]);
        }
      }
    }
  }

  TileCopy<false> copy_;
  uint8_t* shared_;
  int lane_, warp_, group_;
  TileStore<kPanelRows> store_;
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BF_MIN_CTAS) w4a16_linear_tile_sm90a(const __grid_constant__ LinearTileArgs args) {
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ int32_t row_of[kTokens];
  GroupTileKernel kernel(args, shared, row_of);
  ForEachTile(args, [&](const Tile& tile) { kernel.Run(tile); });
}
