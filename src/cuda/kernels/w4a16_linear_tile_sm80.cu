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
// Epilogue: row_scale, bias, activation and router weight in fp32, then each warp turns 16 tokens at a time through shared memory and
// stores rows of y. With a gated activation the packed rows alternate 8 gate and 8 up rows of the same hidden indices, so that both
// halves of h[r] lie in one thread.
//
// Split K (dense, sm_90 and later): the CTAs of a cluster each take a part of K; every CTA leaves its sums in shared memory, and each
// adds its share of the tile over all CTAs in their order: no workspace, no counters, the same result every time.
//
// Limit: tensor cores; per 64 x 64 x 16 of a warp 32 MMAs against about 56 instructions of decoding and 10 of loads.
//
// Macros: BF_M16, BF_N8 blocks of a warp; BF_WARPS_M, BF_WARPS_N; BF_STAGES; BF_MIN_CTAS per SM; BF_GROUPED; BF_ACTIVATION (-1 none).
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/weight.cuh"
#include "cuda/linear_tile_args.h"

namespace {

using namespace billfish::cuda;

constexpr int kM16 = BF_M16, kN8 = BF_N8, kWarpsM = BF_WARPS_M, kWarpsN = BF_WARPS_N, kStages = BF_STAGES;
constexpr int kThreads = 32 * kWarpsM * kWarpsN;
constexpr int kOut = 16 * kM16 * kWarpsM, kTokens = 8 * kN8 * kWarpsN;
constexpr int kTilePanels = kOut / kPanelRows;
constexpr int kUnitK = kLayout.unit_k(), kBlocks = kUnitK / kBlockK;
constexpr int kUnitBytes = kLayout.unit_bytes();
constexpr int kXBlockBytes = kTokens * kBlockK * 2;
constexpr int kWeightBytes = (kTilePanels * kUnitBytes + 127) / 128 * 128;
constexpr int kStageBytes = kBlocks * kXBlockBytes + kWeightBytes;
constexpr ActivationKind kActivation = static_cast<ActivationKind>(BF_ACTIVATION);
constexpr bool kGated = IsGated(kActivation);
// Epilogue: a warp's columns of y and the stride of a token in its buffer, 4 more than a multiple of 32 words or of 16 for 16 columns:
// the eight rows and four token pairs of a fragment then hit 32 banks.
constexpr int kWarpColumns = kGated ? kM16 * 8 : kM16 * 16;
constexpr int kTurnStride = kWarpColumns + 4;
constexpr int kTurnTokens = 16;
// Split K: every thread's sums as float4s, and the epilogue's buffers behind them.
constexpr int kSumBytes = kM16 * kN8 * kThreads * 16;

static_assert(kOut % kPanelRows == 0 && kN8 % 2 == 0 && (kM16 == 1 || kM16 == 2 || kM16 == 4));
static_assert(kUnitBytes % 16 == 0);
static_assert(kThreads / 32 * kTurnTokens * kTurnStride * 4 <= kStages * kStageBytes);

struct Tile {
  int out;        // first packed row
  int first_row;  // of y
  int rows;
  int expert;
  int first_unit, end_unit;
};

__device__ __forceinline__ void LoadMatrices(uint32_t address, uint32_t* r) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

class TileKernel {
 public:
  __device__ TileKernel(const LinearTileArgs& args, uint8_t* shared, int32_t* rows) : a_(args), shared_(shared), row_of_(rows) {}

  __device__ void Run(const Tile& tile) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_m = warp % kWarpsM, warp_n = warp / kWarpsM;
    FindRows(tile);
    const uint8_t* weight = a_.weight + tile.expert * a_.expert_bytes;
    const int steps = tile.end_unit - tile.first_unit;
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < steps) CopyStage(weight, tile, tile.first_unit + s, s);
      CommitCopies();
    }

    float sum[kM16][kN8][4] = {};
    int stage = 0;
    for (int step = 0; step < steps; ++step) {
      WaitCopies<kStages - 2>();
      __syncthreads();  // the stage has arrived for everyone, and everyone is done with the one that is filled next
      const int next = step + kStages - 1;
      if (next < steps) CopyStage(weight, tile, tile.first_unit + next, stage == 0 ? kStages - 1 : stage - 1);
      CommitCopies();
      MultiplyStage(shared_ + stage * kStageBytes, warp_m, warp_n, lane, sum);
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    WaitCopies<0>();
    __syncthreads();
#if __CUDA_ARCH__ >= 900 && !BF_GROUPED
    if (a_.splits > 1) {
      StoreSplit(tile, sum, warp_m, warp_n, lane);
      return;
    }
#endif
    float* turn = reinterpret_cast<float*>(shared_) + warp * kTurnTokens * kTurnStride;
#pragma unroll
    for (int n = 0; n < kN8; n += 2) {
      float pair[kM16][2][4];
#pragma unroll
      for (int m = 0; m < kM16; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
          for (int i = 0; i < 4; ++i) pair[m][h][i] = sum[m][n + h][i];
      StoreTokens(tile, pair, turn, tile.out + warp_m * kM16 * 16, (warp_n * kN8 + n) * 8, lane);
    }
    __syncthreads();
  }

 private:
  /// The row of x behind each token of the tile, -1 where there is none.
  __device__ void FindRows(const Tile& tile) {
    for (int t = threadIdx.x; t < kTokens; t += kThreads) {
      int row = -1;
      if (t < tile.rows) row = a_.source != nullptr ? a_.source[tile.first_row + t] : tile.first_row + t;
      row_of_[t] = row;
    }
    __syncthreads();
  }

  __device__ void CopyStage(const uint8_t* weight, const Tile& tile, int unit, int stage) {
    uint8_t* to = shared_ + stage * kStageBytes;
    constexpr int kChunks = kUnitBytes / 16, kAll = kTilePanels * kChunks;
    const int first_panel = tile.out / kPanelRows;
#pragma unroll
    for (int i = 0; i < (kAll + kThreads - 1) / kThreads; ++i) {
      const int c = threadIdx.x + i * kThreads;
      if (kAll % kThreads != 0 && c >= kAll) break;
      const int panel = c / kChunks, chunk = c % kChunks;
      // Panels beyond the last one repeat it: their sums are not stored.
      const int from = min(first_panel + panel, a_.panels - 1);
      CopyAsync16(SharedAddress(to + kBlocks * kXBlockBytes + panel * kUnitBytes + chunk * 16),
                  weight + (static_cast<int64_t>(from) * a_.units + unit) * kUnitBytes + chunk * 16);
    }
    const char* x = static_cast<const char*>(a_.x);
    const int64_t row_bytes = a_.x_stride * 2;
    if (a_.x_aligned) {
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < (kTokens * 8 + kThreads - 1) / kThreads; ++i) {
          const int c = threadIdx.x + i * kThreads;
          if (kTokens * 8 % kThreads != 0 && c >= kTokens * 8) break;
          const int token = c / 8, chunk = c % 8, row = row_of_[token];
          const int k = unit * kUnitK + b * kBlockK + chunk * 8;
          int bytes = min(max((a_.K - k) * 2, 0), 16);
          if (row < 0) bytes = 0;
          const char* from = bytes > 0 ? x + row * row_bytes + k * 2 : x;
          CopyAsync16Zeroed(SharedAddress(to + b * kXBlockBytes + token * 128 + (chunk ^ (token % 8)) * 16), from, bytes);
        }
      }
    } else {
      for (int c = threadIdx.x; c < kTokens * kUnitK; c += kThreads) {
        const int token = c / kUnitK, column = c % kUnitK, row = row_of_[token];
        const int k = unit * kUnitK + column;
        uint16_t value = 0;
        if (row >= 0 && k < a_.K) value = *reinterpret_cast<const uint16_t*>(x + row * row_bytes + k * 2);
        const int b = column / kBlockK, chunk = column % kBlockK / 8;
        *reinterpret_cast<uint16_t*>(to + b * kXBlockBytes + token * 128 + (chunk ^ (token % 8)) * 16 + column % 8 * 2) = value;
      }
    }
  }

  __device__ __forceinline__ void MultiplyStage(const uint8_t* stage, int warp_m, int warp_n, int lane, float (&sum)[kM16][kN8][4]) {
    // ldmatrix: lanes 0..7 address k 0..7 of eight tokens, 8..15 k 8..15 of the same, 16..31 the next eight tokens.
    const int token = warp_n * kN8 * 8 + lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
    const uint32_t x = SharedAddress(stage) + token * 128;
    const uint8_t* units = stage + kBlocks * kXBlockBytes;
    RowScales scales[kM16];
#pragma unroll
    for (int m = 0; m < kM16; ++m) {
      const int block = warp_m * kM16 + m;
      scales[m] = LoadRowScales(units + block / 4 * kUnitBytes, block % 4, lane / 4);
    }
    constexpr int kGroupSteps = kScaleOnAccumulator ? kLayout.group / 16 : 1;
    float part[kScaleOnAccumulator ? kM16 : 1][kScaleOnAccumulator ? kN8 : 1][4];
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      uint32_t words[kM16][kBlockWords];
#pragma unroll
      for (int i = 0; i < kPlanes; ++i) {
        const int step = b * kPlanes + i;
        if constexpr (kScaleOnAccumulator) {
          if (step % kGroupSteps == 0) {
#pragma unroll
            for (int m = 0; m < kM16; ++m)
#pragma unroll
              for (int n = 0; n < kN8; ++n)
#pragma unroll
                for (int j = 0; j < 4; ++j) part[m][n][j] = 0;
          }
        }
        uint32_t bf[kN8][2];
#pragma unroll
        for (int n = 0; n < kN8; n += 2) {
          LoadMatrices(x + b * kXBlockBytes + n * 8 * 128 + ((2 * i + half) ^ (lane % 8)) * 16, bf[n]);
        }
#pragma unroll
        for (int m = 0; m < kM16; ++m) {
          const int block = warp_m * kM16 + m;
          LoadWords(units + block / 4 * kUnitBytes + b * kLayout.block_bytes(), block % 4 * 32 + lane, i, words[m]);
          uint32_t af[4];
          DecodePlane(words[m], scales[m], b, i, af);
#pragma unroll
          for (int n = 0; n < kN8; ++n) {
            if constexpr (kScaleOnAccumulator) {
              Mma(part[m][n], af, bf[n]);
            } else {
              Mma(sum[m][n], af, bf[n]);
            }
          }
          if constexpr (kScaleOnAccumulator) {
            if (step % kGroupSteps == kGroupSteps - 1) {
              const float low = AccumulatorScale(scales[m], 0, step / kGroupSteps),
                          high = AccumulatorScale(scales[m], 1, step / kGroupSteps);
#pragma unroll
              for (int n = 0; n < kN8; ++n)
#pragma unroll
                for (int j = 0; j < 4; ++j) sum[m][n][j] = fmaf(j < 2 ? low : high, part[m][n][j], sum[m][n][j]);
            }
          }
        }
      }
    }
  }

  /// The code words that plane i needs and that are not loaded yet; `thread` owns them in its block.
  __device__ __forceinline__ static void LoadWords(const uint8_t* block, int thread, int i, uint32_t* words) {
    constexpr int kPlanesPerLoad = 4 / kPlaneWords;
    if (i % kPlanesPerLoad != 0) return;
    const int load = i / kPlanesPerLoad;
    const uint4 v = *reinterpret_cast<const uint4*>(block + load * (kTileThreads * 16) + thread * 16);
    words[4 * load] = v.x, words[4 * load + 1] = v.y, words[4 * load + 2] = v.z, words[4 * load + 3] = v.w;
  }

  /// 16 tokens of one warp, from fragments to rows of y. `packed_row` is the first of the warp, `token` the first in the tile.
  __device__ __forceinline__ void StoreTokens(const Tile& tile, const float (&v)[kM16][2][4], float* turn, int packed_row, int token,
                                              int lane) {
    const int q = lane / 4, pair = lane % 4 * 2;
    const int64_t rows_before = static_cast<int64_t>(tile.expert) * a_.panels * kPanelRows;
#pragma unroll
    for (int m = 0; m < kM16; ++m) {
      float value[2][2][2];  // row half, n8 tile, token
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = packed_row + m * 16 + half * 8 + q;
        const bool exists = row < a_.panels * kPanelRows;
        const float scale = a_.row_scale != nullptr && exists ? a_.row_scale[rows_before + row] : 1.0f;
        const float bias = a_.bias != nullptr && exists ? a_.bias[rows_before + row] : 0.0f;
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
          for (int t = 0; t < 2; ++t) value[half][n][t] = fmaf(scale, v[m][n][half * 2 + t], bias);
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          float* to = turn + (n * 8 + pair + t) * kTurnStride;
          if constexpr (kGated) {
            to[m * 8 + q] = Activate<kActivation>(value[0][n][t], value[1][n][t], a_.activation);
          } else if constexpr (kActivation != ActivationKind::kNone) {
            to[m * 16 + q] = Activate<kActivation>(value[0][n][t], 0.0f, a_.activation);
            to[m * 16 + 8 + q] = Activate<kActivation>(value[1][n][t], 0.0f, a_.activation);
          } else {
            to[m * 16 + q] = value[0][n][t];
            to[m * 16 + 8 + q] = value[1][n][t];
          }
        }
      }
    }
    __syncwarp();
    const int column = kGated ? packed_row / 2 : packed_row;
    constexpr int kChunk = BF_OUT == 0 ? 4 : 8;  // columns in 16 bytes
    constexpr int kRowChunks = kWarpColumns / kChunk;
    for (int c = lane; c < kTurnTokens * kRowChunks; c += 32) {
      const int t = c / kRowChunks, n = column + c % kRowChunks * kChunk;
      if (token + t >= tile.rows || n >= a_.N) continue;
      const int64_t row = tile.first_row + token + t;
      StoreChunk(turn + t * kTurnStride + c % kRowChunks * kChunk, row, n);
    }
    __syncwarp();
  }

  __device__ __forceinline__ void StoreChunk(const float* from, int64_t row, int n) {
    constexpr int kChunk = BF_OUT == 0 ? 4 : 8;
    float v[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
    }
    if (BF_GROUPED && a_.router_weight != nullptr) {
      const float weight = a_.router_weight[row];
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[i] *= weight;
    }
#if BF_OUT == 0
    float* to = static_cast<float*>(a_.y) + row * a_.y_stride + n;
    if (a_.y_aligned && n + kChunk <= a_.N) {
      *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
    } else {
      for (int i = 0; i < kChunk; ++i)
        if (n + i < a_.N) to[i] = v[i];
    }
#else
    uint16_t* to = static_cast<uint16_t*>(a_.y) + row * a_.y_stride + n;
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      packed[i] = BF_OUT == 2 ? F16PairFromFloats(v[2 * i], v[2 * i + 1]) : BF16PairFromFloats(v[2 * i], v[2 * i + 1]);
    if (a_.y_aligned && n + kChunk <= a_.N) {
      *reinterpret_cast<uint4*>(to) = make_uint4(packed[0], packed[1], packed[2], packed[3]);
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        if (n + i < a_.N) to[i] = static_cast<uint16_t>(packed[i / 2] >> (i % 2 * 16));
    }
#endif
  }

#if __CUDA_ARCH__ >= 900 && !BF_GROUPED
  __device__ static void ClusterSync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
  }

  /// Adds the tile over the CTAs of the cluster in their order; CTA r stores the pairs of n8 tiles r, r + splits, ...
  __device__ void StoreSplit(const Tile& tile, const float (&sum)[kM16][kN8][4], int warp_m, int warp_n, int lane) {
    constexpr int kPairs = kN8 / 2;
    float4* mine = reinterpret_cast<float4*>(shared_);
#pragma unroll
    for (int n = 0; n < kN8; ++n)
#pragma unroll
      for (int m = 0; m < kM16; ++m)
        mine[(n * kM16 + m) * kThreads + threadIdx.x] = make_float4(sum[m][n][0], sum[m][n][1], sum[m][n][2], sum[m][n][3]);
    ClusterSync();
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    float* turn = reinterpret_cast<float*>(shared_ + kSumBytes) + threadIdx.x / 32 * kTurnTokens * kTurnStride;
    for (int p = rank; p < kPairs; p += a_.splits) {
      float pair[kM16][2][4] = {};
      for (int s = 0; s < a_.splits; ++s) {
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
          for (int m = 0; m < kM16; ++m) {
            uint32_t peer;
            float part[4];
            asm("mapa.shared::cluster.u32 %0, %1, %2;"
                : "=r"(peer)
                : "r"(SharedAddress(mine + ((2 * p + h) * kM16 + m) * kThreads + threadIdx.x)), "r"(s));
            asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                         : "=f"(part[0]), "=f"(part[1]), "=f"(part[2]), "=f"(part[3])
                         : "r"(peer)
                         : "memory");
#pragma unroll
            for (int i = 0; i < 4; ++i) pair[m][h][i] += part[i];
          }
      }
      StoreTokens(tile, pair, turn, tile.out + warp_m * kM16 * 16, (warp_n * kN8 + 2 * p) * 8, lane);
    }
    ClusterSync();  // peers may still be reading this CTA's sums
  }
#endif

  const LinearTileArgs& a_;
  uint8_t* shared_;
  int32_t* row_of_;
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BF_MIN_CTAS) w4a16_linear_tile_sm80(const __grid_constant__ LinearTileArgs args) {
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ int32_t row_of[kTokens];
  TileKernel kernel(args, shared, row_of);
  const int packed_rows = args.panels * kPanelRows;
  const int out_tiles = (packed_rows + kOut - 1) / kOut;
#if BF_GROUPED
  const int64_t tiles = static_cast<int64_t>(*args.work_count) * out_tiles;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const TileWork work = args.work[t / out_tiles];
    kernel.Run({static_cast<int>(t % out_tiles) * kOut, work.first_row, work.rows, work.expert, 0, args.units});
  }
#else
  // Bands of token tiles: within one, the x rows stay in L2 while the weight streams by once.
  const int token_tiles = (args.M + kTokens - 1) / kTokens;
  const int split = blockIdx.x % args.splits, t = blockIdx.x / args.splits;
  const int first_token_tile = t / (args.band * out_tiles) * args.band;
  const int band = min(args.band, token_tiles - first_token_tile), inside = t - first_token_tile * out_tiles;
  const int first_row = (first_token_tile + inside % band) * kTokens;
  kernel.Run({inside / band * kOut, first_row, min(kTokens, args.M - first_row), 0,
              static_cast<int>(static_cast<int64_t>(args.units) * split / args.splits),
              static_cast<int>(static_cast<int64_t>(args.units) * (split + 1) / args.splits)});
#endif
}
