// y[r] = act(W[expert] . x[source[r]]) for many rows sorted by expert, on the asynchronous tensor cores of sm_90a.
//
// As w4a16_linear_tile_sm90a.cu, wgmma with the decoded weight in registers and x in shared memory, but for tiles of very different cost:
//
//   columns    a tile multiplies by 32, 64, 96 or 128 tokens, whichever is enough for its rows: the tensor cores' time goes by it
//   stages     one more warpgroup copies them (tile_feed.cuh), beyond the end of a tile too. The others wait for a stage and give it back
//              each for itself: no barrier of the block, and the next tile's first stages arrive while this one is being stored
//   element    one wgmma for each block of rows and 16 columns; while it runs, the fragments of the next element are decoded
//
// Limit: decoding and multiplying one after the other, about 32 + tokens / 2 cycles of an SM for 64 rows and 16 columns; the tensor cores
// alone take tokens / 2.
//
// Macros: those of tile_shape.cuh. BF_WARPS_M is 4 times the warpgroups that multiply, BF_WARPS_N 1, BF_N8 16.
#include "cuda/kernels/group_stage.cuh"
#include "cuda/kernels/tile_feed.cuh"
#include "cuda/kernels/tile_store.cuh"

namespace {

using namespace billfish::cuda;

static_assert(BF_GROUPED && kWarpsM % 4 == 0 && kWarpsN == 1 && kN8 == 16);

class ExpertTileKernel {
 public:
  __device__ ExpertTileKernel(const LinearTileArgs& args, uint8_t* shared, StageBarriers* barriers)
      : a_(args), shared_(shared), barriers_(barriers) {}

  /// Of this warp's sums in the tile.
  __device__ __forceinline__ static int FirstRow() { return threadIdx.x / kTileThreads * kPanelRows + threadIdx.x / 32 % 4 * 16; }

  __device__ void Run(const Tile& tile) {
    if (tile.rows <= 32) return RunColumns<4>(tile);
    if (tile.rows <= 64) return RunColumns<8>(tile);
    if (tile.rows <= 96) return RunColumns<12>(tile);
    RunColumns<16>(tile);
  }

 private:
  template <int kColumns>
  __device__ __forceinline__ void RunColumns(const Tile& tile) {
    float sum[kM16][kColumns][4] = {};
    GroupStage<kM16>().MultiplyStages(a_, shared_, *barriers_, turn_, tile.end_step - tile.first_step, sum);
    TileStore<kRowGroups * kPanelRows>(a_, tile, FirstRow(), 0).StoreWarp(sum);
  }

  const LinearTileArgs& a_;
  uint8_t* shared_;
  StageBarriers* barriers_;
  StageTurn turn_;
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kBlockThreads, BF_MIN_CTAS)
    w4a16_grouped_tile_sm90a(const __grid_constant__ LinearTileArgs args) {
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ StageBarriers barriers;
  __shared__ int32_t row_of[kTokens];
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) InitBarrier(&barriers.full[s], TileFeed::kArrivals), InitBarrier(&barriers.empty[s], kThreads / 32);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // bulk copies see them, too
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
