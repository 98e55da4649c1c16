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
constexpr int kChunk = 8;  // columns that a thread stores at once
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
  __device__ TileKernel(const LinearTileArgs& args, uint8_t* shared, int32_t* rows)
      : a_(args),
        shared_(shared),
        row_of_(rows),
        lane_(threadIdx.x % 32),
        warp_m_(threadIdx.x / 32 % kWarpsM),
        warp_n_(threadIdx.x / 32 / kWarpsM) {}

  __device__ void Run(const Tile& tile) {
    FindRows(tile);
    Sources from = FindSources(tile);
    const int steps = tile.end_unit - tile.first_unit;
#pragma unroll 1
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < steps) CopyStage(tile, from, tile.first_unit + s, s);
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
      const int unit = tile.first_unit + step + kStages - 1;
      const bool wanted = unit < tile.end_unit, plain = wanted && IsPlain(unit);
      if (wanted && !plain) CopyStage(tile, from, unit, free);
      MultiplyStage(
          operands, shared_ + stage * kStageBytes, shared_ + next * kStageBytes, sum,
          [&](int element) {
            if (plain) CopyPart(from, unit, free, element);
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
#if __CUDA_ARCH__ >= 900 && !BF_GROUPED
    if (a_.splits > 1) {
      StoreSplit(tile, sum);
      return;
    }
#endif
    float* turn = reinterpret_cast<float*>(shared_) + threadIdx.x / 32 * kTurnTokens * kTurnStride;
#pragma unroll
    for (int n = 0; n < kN8; n += 2) {
      float pair[kM16][2][4];
#pragma unroll
      for (int m = 0; m < kM16; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
          for (int i = 0; i < 4; ++i) pair[m][h][i] = sum[m][n + h][i];
      StoreTokens(tile, pair, turn, tile.out + warp_m_ * kM16 * 16, (warp_n_ * kN8 + n) * 8);
    }
    __syncthreads();
  }

 private:
  /// The row of x behind each token of the tile. Tokens beyond the last row repeat it: their sums are not stored.
  __device__ void FindRows(const Tile& tile) {
    for (int t = threadIdx.x; t < kTokens; t += kThreads) {
      const int row = tile.first_row + min(t, tile.rows - 1);
      row_of_[t] = BF_GROUPED && a_.source != nullptr ? a_.source[row] : row;
    }
    __syncthreads();
  }

  static constexpr int kUnitChunks = kUnitBytes / 16, kWeightChunks = kTilePanels * kUnitChunks;
  static constexpr int kWeightParts = (kWeightChunks + kThreads - 1) / kThreads;
  static constexpr int kRowParts = (kTokens * 8 + kThreads - 1) / kThreads;  // 16-byte chunks of a thread in 64 columns of the tile's rows
  static constexpr int kParts = kWeightParts + kBlocks * kRowParts;

  /// Where this thread's copies come from: chunk threadIdx.x % 8 of 64 columns for its rows, and its chunks of the panels' first units.
  struct Sources {
    const uint8_t* weight;
    uint32_t weight_offset[kWeightParts];
    const char* row[kRowParts];
  };

  __device__ __forceinline__ Sources FindSources(const Tile& tile) const {
    Sources from;
    const int first_panel = tile.out / kPanelRows;
    const int64_t panel_bytes = static_cast<int64_t>(a_.units) * kUnitBytes;
    from.weight = a_.weight + tile.expert * a_.expert_bytes + first_panel * panel_bytes;
#pragma unroll
    for (int i = 0; i < kWeightParts; ++i) {
      const int c = threadIdx.x + i * kThreads;
      // Panels beyond the last one repeat it: their sums are not stored.
      const int panel = min(c / kUnitChunks, a_.panels - 1 - first_panel);
      from.weight_offset[i] = static_cast<uint32_t>(panel * panel_bytes) + c % kUnitChunks * 16;
    }
#pragma unroll
    for (int i = 0; i < kRowParts; ++i) {
      const int token = min(static_cast<int>(threadIdx.x / 8) + i * (kThreads / 8), kTokens - 1);
      from.row[i] = static_cast<const char*>(a_.x) + (row_of_[token] * a_.x_stride + threadIdx.x % 8 * 8) * 2;
    }
    return from;
  }

  /// Whether the unit's columns of x exist and may be copied 16 bytes at a time.
  __device__ __forceinline__ bool IsPlain(int unit) const { return a_.x_aligned && (unit + 1) * kUnitK <= a_.K; }

  __device__ __forceinline__ void CopyWeightPart(const Sources& from, int unit, uint32_t to, int i) const {
    const int c = threadIdx.x + i * kThreads;
    if (kWeightChunks % kThreads == 0 || c < kWeightChunks) {
      CopyAsync16(to + kBlocks * kXBlockBytes + c * 16, from.weight + static_cast<int64_t>(unit) * kUnitBytes + from.weight_offset[i]);
    }
  }

  /// The part of a plain stage's copies that belongs to one element of MultiplyStage: spread between the MMAs.
  __device__ __forceinline__ void CopyPart(const Sources& from, int unit, int stage, int element) const {
    const uint32_t to = SharedAddress(shared_) + stage * kStageBytes;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      if (p * (kSteps - 1) * kM16 / kParts != element) continue;
      if (p < kWeightParts) {
        CopyWeightPart(from, unit, to, p);
      } else {
        const int b = (p - kWeightParts) / kRowParts, i = (p - kWeightParts) % kRowParts;
        const int token = threadIdx.x / 8 + i * (kThreads / 8);
        if (kTokens * 8 % kThreads == 0 || token < kTokens) {
          CopyAsync16(to + b * kXBlockBytes + token * 128 + (threadIdx.x % 8 ^ token % 8) * 16,
                      from.row[i] + (unit * kUnitK + b * kBlockK) * 2);
        }
      }
    }
  }

  /// A whole stage, of any kind. Columns beyond K are zeros: their codes are zeros, but what lies in memory there may be no number.
  __device__ void CopyStage(const Tile& tile, const Sources& from, int unit, int stage) {
    if (IsPlain(unit)) {
#pragma unroll
      for (int e = 0; e < kSteps * kM16; ++e) CopyPart(from, unit, stage, e);
      return;
    }
    uint8_t* to = shared_ + stage * kStageBytes;
#pragma unroll
    for (int i = 0; i < kWeightParts; ++i) CopyWeightPart(from, unit, SharedAddress(to), i);
    const char* x = static_cast<const char*>(a_.x);
    const int columns = min(kUnitK, a_.K - unit * kUnitK);
    const int width = a_.x_aligned ? 8 : 1;
#pragma unroll 1
    for (int c = threadIdx.x * width; c < kTokens * kUnitK; c += kThreads * width) {
      const int token = c / kUnitK, column = c % kUnitK, chunk = column % kBlockK / 8;
      uint8_t* at = to + column / kBlockK * kXBlockBytes + token * 128 + (chunk ^ (token % 8)) * 16;
      const int valid = max(columns - column, 0);
      const char* source = x + (row_of_[token] * a_.x_stride + unit * kUnitK + (valid > 0 ? column : 0)) * 2;
      if (a_.x_aligned) {
        CopyAsync16Zeroed(SharedAddress(at), source, min(valid * 2, 16));
      } else {
        reinterpret_cast<uint16_t*>(at)[column % 8] = valid > 0 ? *reinterpret_cast<const uint16_t*>(source) : uint16_t{0};
      }
    }
  }

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

  /// 16 tokens of one warp, from fragments to rows of y. `packed_row` is the first of the warp, `token` the first in the tile.
  __device__ __forceinline__ void StoreTokens(const Tile& tile, const float (&v)[kM16][2][4], float* turn, int packed_row, int token) {
    const int q = lane_ / 4, pair = lane_ % 4 * 2;
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
    constexpr int kRowChunks = kWarpColumns / kChunk;
    for (int c = lane_; c < kTurnTokens * kRowChunks; c += 32) {
      const int t = c / kRowChunks, n = column + c % kRowChunks * kChunk;
      if (token + t >= tile.rows || n >= a_.N) continue;
      const int64_t row = tile.first_row + token + t;
      StoreChunk(turn + t * kTurnStride + c % kRowChunks * kChunk, row, n);
    }
    __syncwarp();
  }

  /// Eight columns of a row of y.
  __device__ __forceinline__ void StoreChunk(const float* from, int64_t row, int n) {
    const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
    float v[kChunk] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    if (BF_GROUPED && a_.router_weight != nullptr) {
      const float weight = a_.router_weight[row];
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[i] *= weight;
    }
    const bool whole = a_.y_aligned && n + kChunk <= a_.N;
    const int64_t at = row * a_.y_stride + n;
    if (a_.out == OutType::kF32) {
      float* to = static_cast<float*>(a_.y) + at;
      if (whole) {
        reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
      } else {
#pragma unroll
        for (int i = 0; i < kChunk; ++i)
          if (n + i < a_.N) to[i] = v[i];
      }
      return;
    }
    uint16_t* to = static_cast<uint16_t*>(a_.y) + at;
    uint32_t pairs[kChunk / 2];
#pragma unroll
    for (int i = 0; i < kChunk / 2; ++i) {
      pairs[i] = a_.out == OutType::kF16 ? F16PairFromFloats(v[2 * i], v[2 * i + 1]) : BF16PairFromFloats(v[2 * i], v[2 * i + 1]);
    }
    if (whole) {
      *reinterpret_cast<uint4*>(to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        if (n + i < a_.N) to[i] = static_cast<uint16_t>(pairs[i / 2] >> (i % 2 * 16));
    }
  }

#if __CUDA_ARCH__ >= 900 && !BF_GROUPED
  __device__ static void ClusterSync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
  }

  /// Adds the tile over the CTAs of the cluster in their order; CTA r stores the pairs of n8 tiles r, r + splits, ...
  __device__ void StoreSplit(const Tile& tile, const float (&sum)[kM16][kN8][4]) {
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
      StoreTokens(tile, pair, turn, tile.out + warp_m_ * kM16 * 16, (warp_n_ * kN8 + 2 * p) * 8);
    }
    ClusterSync();  // peers may still be reading this CTA's sums
  }
#endif

  const LinearTileArgs& a_;
  uint8_t* shared_;
  int32_t* row_of_;
  int lane_, warp_m_, warp_n_;
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
