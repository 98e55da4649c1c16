// y[M,N] = x[M,K] . W[N,K]^T for many rows, on the asynchronous tensor cores of sm_90a.
//
// As w4a16_linear_tile_sm80.cu, but a warpgroup multiplies up to kM16 blocks of 64 packed rows by all tokens of the tile at once: wgmma
// with the decoded weight in registers and x in shared memory, so that no B fragments are loaded.
//
//   tile       args.tile_panels panels, at most kM16 for each warpgroup, as many as spread the weight evenly over the SMs: a warpgroup has
//              those of w, w + kRowGroups, ... that exist
//   stages     one more warpgroup copies them (tile_feed.cuh). The others wait for a stage and give it back each for itself
//   element    one wgmma for a block of rows and 16 columns; while it runs, the fragments of the next element are decoded
//   split K    the blocks of a cluster each sum a part of K and send what another stores to it (tile_store.cuh)
//   launch     dependent: the weight's first stages come while the kernel before ends
//
// Limit: at 64 tokens about 44 cycles of an SM for 64 rows and 16 columns, of which the tensor cores take tokens / 2 and decoding 22 (E2M1)
// or 15 (int4), mostly beside them. High tiles keep x from L2 below what the SMs can take: 8 KB for 64 columns and 64 tokens. Start, first
// stage and the end of a block take 4 us more, an exchange of sums 2.
//
// Macros: those of tile_shape.cuh. BF_WARPS_M is 4 times the warpgroups that multiply, BF_WARPS_N 1.
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/group_stage.cuh"
#include "cuda/kernels/tile_feed.cuh"
#include "cuda/kernels/tile_store.cuh"

namespace {

using namespace billfish::cuda;

static_assert(!BF_GROUPED && kWarpsM % 4 == 0 && kWarpsN == 1);

using Store = TileStore<kRowGroups * kPanelRows>;

class GroupTileKernel {
 public:
  __device__ GroupTileKernel(const LinearTileArgs& args, uint8_t* shared, StageBarriers* barriers, Mailbox* mailbox)
      : a_(args),
        shared_(shared),
        barriers_(barriers),
        mailbox_(mailbox),
        group_(__shfl_sync(~0u, static_cast<int>(threadIdx.x / kTileThreads), 0)) {}

  /// Every thread of the block that does not copy.
  __device__ void Run(const Tile& tile) { RunSome<kM16>(tile, (a_.tile_panels - group_ + kRowGroups - 1) / kRowGroups); }

 private:
  template <int kRows>
  __device__ __forceinline__ void RunSome(const Tile& tile, int rows) {
    if (rows == kRows) {
      RunRows<kRows>(tile);
    } else if constexpr (kRows > 1) {
      RunSome<kRows - 1>(tile, rows);
    }
  }

  template <int kRows>
  __device__ __forceinline__ void RunRows(const Tile& tile) {
    float sum[kRows][kN8][4] = {};
    StageTurn turn;
    const int row = group_ * kPanelRows + threadIdx.x / 32 % 4 * 16;
    Store(a_, tile, row, 0).template Prefetch<kRows>();
    WarmDecode();
    GroupStage<kRows>().MultiplyStages(a_, shared_, *barriers_, turn, tile.end_step - tile.first_step, sum);
    const Store store(a_, tile, row, 0);
    WaitForPredecessor();  // it may read what y is to overwrite
    if (a_.splits > 1) {
      mailbox_->AwaitOthers();
      store.StoreHalf(sum, shared_ + a_.stages * a_.stage_bytes, *mailbox_);
    } else {
      store.StoreWarp(sum);
    }
  }

  const LinearTileArgs& a_;
  uint8_t* shared_;
  StageBarriers* barriers_;
  Mailbox* mailbox_;
  int group_;
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kBlockThreads, BF_MIN_CTAS)
    w4a16_linear_tile_sm90a(const __grid_constant__ LinearTileArgs args, const __grid_constant__ TensorMap x_map) {
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ StageBarriers barriers;
  __shared__ Mailbox mailbox;
  __shared__ int32_t row_of[kTokens];
  AllowDependents();
  if (threadIdx.x == kThreads) asm volatile("prefetch.tensormap [%0];" ::"l"(&x_map) : "memory");
  if (threadIdx.x == 0) {
    const int readers = 4 * min(args.tile_panels, kRowGroups);
    for (int s = 0; s < kStages; ++s) InitBarrier(&barriers.full[s], TileFeed::kArrivals), InitBarrier(&barriers.empty[s], readers);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // bulk copies see them, too
  }
  __syncthreads();
  ForEachTile(args, [&](const Tile& tile) {
    if (args.splits > 1) mailbox.Open(Store::HalfMailBytes(args, tile));
    if (threadIdx.x >= kThreads) {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kFeedRegisters));
      TileFeed(args, shared, row_of, &barriers).RunDense(tile, &x_map);
    } else {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kMathRegisters));
      GroupTileKernel(args, shared, &barriers, &mailbox).Run(tile);
    }
  });
}
