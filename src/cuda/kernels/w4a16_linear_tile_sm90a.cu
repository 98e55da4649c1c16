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
// Limit: tensor cores; x from L2: a tile of 256 x 128 reads 25 KB in 1024 cycles of an SM.
//
// Macros: those of tile_shape.cuh. BF_WARPS_M is 4 times the warpgroups, BF_WARPS_N 1.
#include "cuda/kernels/group_stage.cuh"
#include "cuda/kernels/tile_copy.cuh"
#include "cuda/kernels/tile_store.cuh"

namespace {

using namespace billfish::cuda;

static_assert(!BF_GROUPED && kWarpsM % 4 == 0 && kWarpsN == 1 && kStages >= 3);

class GroupTileKernel {
 public:
  __device__ GroupTileKernel(const LinearTileArgs& args, uint8_t* shared, int32_t* rows)
      : copy_(args, shared, rows), shared_(shared), store_(args, shared, stage_.FirstRow(), 0) {}

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
    GroupStage::Operands operands;
    stage_.Load(operands, shared_, 0);
    stage_.Decode(operands, 0, 0);
    int stage = 0;
    for (int step = 0; step < steps; ++step) {
      const int next = stage == kStages - 1 ? 0 : stage + 1;
      const int ahead = tile.first_step + step + kStages - 2;
      const int free = stage + kStages - 2 < kStages ? stage + kStages - 2 : stage - 2;
      stage_.Multiply(
          operands, shared_ + stage * kStageBytes, shared_ + next * kStageBytes, sum,
          [&] {
            if (ahead < tile.end_step) copy_.CopyStage(tile, from, ahead, free);
            CommitCopies();
          },
          Arrive);
      stage = next;
    }
    WaitCopies<0>();
    __syncthreads();
    store_.Store(tile, sum);
  }

 private:
  /// Waits for this thread's copies of the next stage, then for everyone's.
  __device__ __forceinline__ static void Arrive() {
    WaitCopies<kStages - 3>();
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
  }

  TileCopy<false> copy_;
  uint8_t* shared_;
  GroupStage stage_;
  TileStore<kPanelRows> store_;
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BF_MIN_CTAS) w4a16_linear_tile_sm90a(const __grid_constant__ LinearTileArgs args) {
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ int32_t row_of[kTokens];
  GroupTileKernel kernel(args, shared, row_of);
  ForEachTile(args, [&](const Tile& tile) { kernel.Run(tile); });
}
