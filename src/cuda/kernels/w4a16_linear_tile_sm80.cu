// y[M,N] = x[M,K] . W[N,K]^T for many rows, dense or grouped by expert, on tensor cores of sm_80 and later.
//
// The weight is the A operand of mma.m16n8k16 (its packed form is A fragments already), x the B operand, so that a CTA computes a tile of
// y^T: kOut packed rows x kTokens rows of x. Steps of one unit of K (64 or 128 columns), kStages of them in flight:
//
//   copy     cp.async: whole units of the tile's panels as they lie, and x rows, 64 columns = 128 bytes, whose 16-byte chunks are
//            stored at chunk ^ (row % 8): ldmatrix reads 8 rows without bank conflicts. Rows and columns that do not exist are zeros.
//   decode   a thread loads its codes of a 16 x 64 block with one 16-byte read and expands them in registers, once per warp
//   multiply each A fragment serves kN8 tiles of 8 tokens, each B fragment kM16 blocks of 16 rows
//   scale    layouts whose scales belong on the accumulator collect one group in `part` and add scale * part to `sum` in fp32
//
// The rest is in tile_copy.cuh and tile_store.cuh.
//
// Limit: tensor cores; per 64 x 64 x 16 of a warp 32 MMAs against about 56 instructions of decoding and 10 of loads.
//
// Macros: those of tile_shape.cuh and BF_MIN_CTAS per SM.
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/tile_copy.cuh"
#include "cuda/kernels/tile_store.cuh"

namespace {

using namespace billfish::cuda;

static_assert(kStageUnits == 1);

using Store = TileStore<16>;

class TileKernel {
 public:
  __device__ TileKernel(const LinearTileArgs& args, uint8_t* shared, int32_t* rows, Mailbox* mailbox)
      : a_(args),
        mailbox_(mailbox),
        copy_(args, shared, rows),
        shared_(shared),
        lane_(threadIdx.x % 32),
        warp_m_(threadIdx.x / 32 % kWarpsM),
        warp_n_(threadIdx.x / 32 / kWarpsM) {}

  __device__ void Run(const Tile& tile) {
    copy_.FindRows(tile);
    const TileCopy<true>::Sources from = copy_.FindSources(tile);
    const int steps = tile.end_step - tile.first_step;
#pragma unroll 1
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < steps) copy_.CopyStage(tile, from, tile.first_step + s, s);
      CommitCopies();
    }
    WaitCopies<kStages - 2>();
    __syncthreads();

    float sum[kM16][kN8][4] = {};
    Operands operands;
    LoadFirst(operands, shared_);
    int stage = 0;
    for (int step = 0; step < steps; ++step) {
      const int next = stage == kStages - 1 ? 0 : stage + 1, free = stage == 0 ? kStages - 1 : stage - 1;
      const int ahead = tile.first_step + step + kStages - 1;
      const bool wanted = ahead < tile.end_step, plain = wanted && copy_.IsPlain(ahead);
      if (wanted && !plain) copy_.CopyStage(tile, from, ahead, free);
      MultiplyStage(
          operands, shared_ + stage * kStageBytes, shared_ + next * kStageBytes, sum,
          [&](int element) {
            if (plain) copy_.CopyPart<(kSteps - 1) * kM16>(from, ahead, free, element);
          },
          [] {
            CommitCopies();
            WaitCopies<kStages - 2>();
            __syncthreads();  // the next stage has arrived for everyone, and everyone has read the last of this one
          });
      stage = next;
    }
    WaitCopies<0>();
    __syncthreads();
    const Store store(a_, tile, warp_m_ * kM16 * 16, warp_n_ * kN8 * 8);
    if (!BF_GROUPED && a_.splits > 1) {
#if __CUDA_ARCH__ >= 900
      mailbox_->AwaitOthers();
      SyncCluster();  // sums go where others' stages were
      store.StoreSplit(sum, shared_, *mailbox_);
#endif
    } else {
      store.StoreWarp(sum);
    }
    __syncthreads();
  }

 private:
  static constexpr int kSteps = kBlocks * kPlanes;  // k16 steps of a stage

  /// What a warp holds in registers ahead of its MMAs: B fragments of a step and the next, the A fragment of an element (step, block of
  /// 16 rows) and the next, codes and scales.
  struct Operands {
    uint32_t b[2][kN8][2];
    uint32_t a[2][4];
    uint32_t words[kM16][kBlockWords];
    RowScales scales[kM16];
  };

  __device__ __forceinline__ void LoadB(const uint8_t* stage, int step, uint32_t (&b)[kN8][2]) const {
    // Lanes 0..7 address k 0..7 of eight tokens, 8..15 k 8..15 of the same, 16..31 the next eight tokens.
    const int token = warp_n_ * kN8 * 8 + lane_ / 16 * 8 + lane_ % 8, half = lane_ / 8 % 2;
    const uint32_t x =
        SharedAddress(stage) + step / kPlanes * kXBlockBytes + token * 128 + ((2 * (step % kPlanes) + half) ^ (lane_ % 8)) * 16;
#pragma unroll
    for (int n = 0; n < kN8; n += 2) LoadMatrices(x + n * 8 * 128, b[n]);
  }

  __device__ __forceinline__ const uint8_t* Unit(const uint8_t* stage, int m) const {
    return stage + kBlocks * kXBlockBytes + (warp_m_ * kM16 + m) / 4 * kUnitBytes;
  }
  __device__ __forceinline__ void LoadScales(const uint8_t* stage, int m, RowScales& scales) const {
    scales = LoadRowScales(Unit(stage, m), (warp_m_ * kM16 + m) % 4, lane_ / 4);
  }
  /// The words of this step, if they are not those that an earlier step of the block has loaded already.
  __device__ __forceinline__ void LoadWords(const uint8_t* stage, int step, int m, uint32_t* words) const {
    constexpr int kStepsPerLoad = 4 / kPlaneWords;
    if (step % kStepsPerLoad != 0) return;
    const int load = step % kPlanes / kStepsPerLoad, thread = (warp_m_ * kM16 + m) % 4 * 32 + lane_;
    const uint8_t* block = Unit(stage, m) + step / kPlanes * kLayout.block_bytes();
    const uint4 v = *reinterpret_cast<const uint4*>(block + (load * kTileThreads + thread) * 16);
    words[4 * load] = v.x, words[4 * load + 1] = v.y, words[4 * load + 2] = v.z, words[4 * load + 3] = v.w;
  }

  __device__ __forceinline__ void LoadFirst(Operands& o, const uint8_t* stage) const {
    LoadB(stage, 0, o.b[0]);
#pragma unroll
    for (int m = 0; m < kM16; ++m) {
      LoadScales(stage, m, o.scales[m]);
      LoadWords(stage, 0, m, o.words[m]);
    }
    DecodePlane(o.words[0], o.scales[0], 0, 0, o.a[0]);
  }

  /// `copy` runs once an element, in the shadow of its MMAs. `turn_over` runs when everything of this stage that is not in registers has
  /// been used, and returns when `next` may be read. After the last stage what is read from `next` is never used.
  template <class Copy, class TurnOver>
  __device__ __forceinline__ void MultiplyStage(Operands& o, const uint8_t* stage, const uint8_t* next, float (&sum)[kM16][kN8][4],
                                                const Copy& copy, const TurnOver& turn_over) const {
    constexpr int kGroupSteps = kScaleOnAccumulator ? kLayout.group / 16 : 1;
    float part[kScaleOnAccumulator ? kM16 : 1][kScaleOnAccumulator ? kN8 : 1][4];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const bool last = s == kSteps - 1;
      const int then = last ? 0 : s + 1;
      const uint8_t* from = last ? next : stage;
      if (last) turn_over();
      LoadB(from, then, o.b[(s + 1) % 2]);
#pragma unroll
      for (int m = 0; m < kM16; ++m) {
        const int e = s * kM16 + m;
        copy(e);
        if (m + 1 < kM16) DecodePlane(o.words[m + 1], o.scales[m + 1], s / kPlanes, s % kPlanes, o.a[(e + 1) % 2]);
        if (kM16 > 1 && m + 1 == kM16) DecodePlane(o.words[0], o.scales[0], then / kPlanes, then % kPlanes, o.a[(e + 1) % 2]);
        if constexpr (kScaleOnAccumulator) {
          if (s % kGroupSteps == 0) {
#pragma unroll
            for (int n = 0; n < kN8; ++n)
#pragma unroll
              for (int i = 0; i < 4; ++i) part[m][n][i] = 0;
          }
        }
#pragma unroll
        for (int n = 0; n < kN8; ++n) {
          if constexpr (kScaleOnAccumulator) {
            Mma(part[m][n], o.a[e % 2], o.b[s % 2][n]);
          } else {
            Mma(sum[m][n], o.a[e % 2], o.b[s % 2][n]);
          }
        }
        if constexpr (kScaleOnAccumulator) {
          if (s % kGroupSteps == kGroupSteps - 1) {
            const float low = AccumulatorScale(o.scales[m], 0, s / kGroupSteps), high = AccumulatorScale(o.scales[m], 1, s / kGroupSteps);
#pragma unroll
            for (int n = 0; n < kN8; ++n)
#pragma unroll
              for (int i = 0; i < 4; ++i) sum[m][n][i] = fmaf(i < 2 ? low : high, part[m][n][i], sum[m][n][i]);
          }
        }
        LoadWords(from, then, m, o.words[m]);
        if (last) LoadScales(next, m, o.scales[m]);
        if (kM16 == 1) DecodePlane(o.words[0], o.scales[0], then / kPlanes, then % kPlanes, o.a[(e + 1) % 2]);
      }
    }
  }

  const LinearTileArgs& a_;
  Mailbox* mailbox_;
  TileCopy<true> copy_;
  uint8_t* shared_;
  int lane_, warp_m_, warp_n_;
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BF_MIN_CTAS) w4a16_linear_tile_sm80(const __grid_constant__ LinearTileArgs args) {
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ int32_t row_of[kTokens];
  __shared__ Mailbox mailbox;
  TileKernel kernel(args, shared, row_of, &mailbox);
  ForEachTile(args, [&](const Tile& tile) {
    if (!BF_GROUPED && args.splits > 1) mailbox.Open(Store::MailBytes(args, tile));
    kernel.Run(tile);
  });
}
