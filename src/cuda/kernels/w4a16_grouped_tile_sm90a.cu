// y[r] = act(W[expert] . x[source[r]]) for many rows sorted by expert, on the asynchronous tensor cores of sm_90a.
//
// As w4a16_linear_tile_sm90a.cu, wgmma with the decoded weight in registers and x in shared memory, but for tiles of very different cost:
//
//   columns    a tile multiplies by 32, 64, 96 or 128 tokens, whichever is enough for its rows: the tensor cores' time goes by it
//   stages     one more warpgroup copies them (tile_feed.cuh), beyond the end of a tile too. The others wait for a stage and give it back
//              each for itself: no barrier of the block, and the next tile's first stages arrive while this one is being stored
//   element    one wgmma for each block of rows and 16 columns; while it runs, the fragments of the next element are decoded
//
// Layouts whose scales belong on the accumulator go through a stage block of rows by block of rows: they sum one group in `part`, wait, and
// add scale * part to `sum`; the other warpgroups keep the tensor cores busy. No wgmma is in flight across the end of a stage's loop body:
// the compiler would put every one of them behind a wait.
//
// Limit: decoding and multiplying one after the other, about 32 + tokens / 2 cycles of an SM for 64 rows and 16 columns; the tensor cores
// alone take tokens / 2.
//
// Macros: those of tile_shape.cuh. BF_WARPS_M is 4 times the warpgroups that multiply, BF_WARPS_N 1, BF_N8 16.
#include "cuda/kernels/tile_feed.cuh"
#include "cuda/kernels/tile_store.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace {

using namespace billfish::cuda;

static_assert(BF_GROUPED && kWarpsM % 4 == 0 && kWarpsN == 1 && kN8 == 16 && kStages >= 2);

constexpr int kBlockThreads = kThreads + kFeedThreads;

// Registers of a thread, in steps of 8. What the copies give back the other warpgroups may take, and no more: a block has what it was
// launched with.
constexpr int kLaunchRegisters = 65536 / (BF_MIN_CTAS * kBlockThreads) / 8 * 8, kFeedRegisters = 32;
constexpr int kSharedRegisters = (kLaunchRegisters * (kBlockThreads / 128) - kFeedRegisters) / (kThreads / 128) / 8 * 8;
constexpr int kMathRegisters = kSharedRegisters < 240 ? kSharedRegisters : 240;

class ExpertTileKernel {
 public:
  __device__ ExpertTileKernel(const LinearTileArgs& args, uint8_t* shared, StageBarriers* barriers)
      : shared_(shared),
        barriers_(barriers),
        lane_(threadIdx.x % 32),
        warp_(threadIdx.x / 32 % 4),
        group_(threadIdx.x / kTileThreads),
        store_(args, shared + kStages * kStageBytes, group_ * kM16 * kPanelRows + warp_ * 16, 0) {}

  __device__ void Run(const Tile& tile) {
    if (tile.rows <= 32) return RunColumns<4>(tile);
    if (tile.rows <= 64) return RunColumns<8>(tile);
    if (tile.rows <= 96) return RunColumns<12>(tile);
    RunColumns<16>(tile);
  }

 private:
  template <int kColumns>
  __device__ __forceinline__ void RunColumns(const Tile& tile) {
    const int steps = tile.end_step - tile.first_step;
    float sum[kM16][kColumns][4] = {};
    Operands operands;
    AwaitStage(turn_);
    Load(operands, Slot(turn_), 0);
    Decode(operands, 0, 0);
    for (int step = 0; step < steps; ++step) {
      StageTurn next = turn_;
      next.Advance();
      const bool more = step + 1 < steps;
      MultiplyStage(operands, Slot(turn_), Slot(more ? next : turn_), sum, [&] {
        if (more) AwaitStage(next);
      });
      __syncwarp();
      if (lane_ == 0) Arrive(SharedAddress(&barriers_->empty[turn_.slot]));
      turn_ = next;
    }
    store_.StoreWarp(tile, sum);
  }

  static constexpr int kUnitSteps = kLayout.unit_k() / 16, kSteps = kStageUnits * kUnitSteps;  // k16 steps

  // An element is a block of rows and a step, blocks outside; or, where blocks share an accumulator's life, a step of all blocks.
  static constexpr int kParts = kScaleOnAccumulator ? kM16 : 1, kTogether = kM16 / kParts;
  static constexpr int kElements = kParts * kSteps;

  struct Operands {
    uint32_t a[2][kTogether][4];
    uint32_t words[kTogether][kBlockWords];
    RowScales scales[kTogether];
  };

  __device__ __forceinline__ const uint8_t* Slot(const StageTurn& turn) const { return shared_ + turn.slot * kStageBytes; }
  /// Returns when the stage is there, and readable by wgmma.
  __device__ __forceinline__ void AwaitStage(const StageTurn& turn) const {
    Await(&barriers_->full[turn.slot], turn.round);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
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

  /// `await` returns when `next` may be read. After the last stage it is the stage itself, and what is read there is never used.
  template <int kColumns, class AwaitNext>
  __device__ __forceinline__ void MultiplyStage(Operands& o, const uint8_t* stage, const uint8_t* next, float (&sum)[kM16][kColumns][4],
                                                const AwaitNext& await) const {
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
      if (e > 0 && !(kScaleOnAccumulator && s % kGroupSteps == 0)) WaitMma<1>();  // the next decode takes the registers of the wgmma before
      if (last) await();
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

  uint8_t* shared_;
  StageBarriers* barriers_;
  int lane_, warp_, group_;
  StageTurn turn_;
  TileStore<kPanelRows> store_;
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kBlockThreads, BF_MIN_CTAS)
    w4a16_grouped_tile_sm90a(const __grid_constant__ LinearTileArgs args) {
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ StageBarriers barriers;
  __shared__ int32_t row_of[kTokens];
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) InitBarrier(&barriers.full[s], TileFeed::kArrivals), InitBarrier(&barriers.empty[s], kThreads / 32);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x >= kThreads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kFeedRegisters));
    TileFeed feed(args, shared, row_of, &barriers);
    ForEachTile(args, [&](const Tile& tile) { feed.Run(tile); });
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kMathRegisters));
    ExpertTileKernel kernel(args, shared, &barriers);
    ForEachTile(args, [&](const Tile& tile) { kernel.Run(tile); });
  }
}
