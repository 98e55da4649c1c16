// The end of a tile kernel: sums in registers -> row_scale, bias, activation and router weight in fp32 -> rows of y.
//
// Each warp turns 16 tokens at a time through shared memory. With a gated activation the packed rows alternate 8 gate and 8 up rows of the
// same features, so that both halves of h lie in one thread.
//
// Split K (dense, sm_90 and later): the CTAs of a cluster each sum a part of K; every CTA leaves its sums in shared memory, and each adds
// its share of the tile over all CTAs in their order: no workspace, no counters, the same result every time.
#pragma once

#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/cluster.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/tile_shape.cuh"

namespace billfish::cuda {

/// kRowStep: from one block of 16 packed rows of a warp to its next.
template <int kRowStep>
class TileStore {
 public:
  /// shared: a buffer of every warp, and for split K all sums. warp_row, warp_token: the warp's first in the tile.
  __device__ TileStore(const LinearTileArgs& args, uint8_t* shared, int warp_row, int warp_token)
      : a_(args), shared_(shared), lane_(threadIdx.x % 32), warp_row_(warp_row), warp_token_(warp_token) {}

  /// Every thread of the block, after a barrier behind the last use of shared memory; ends with one.
  __device__ __forceinline__ void Store(const Tile& tile, const float (&sum)[kM16][kN8][4]) {
#if __CUDA_ARCH__ >= 900 && !BF_GROUPED
    if (a_.splits > 1) {
      StoreSplit(tile, sum);
      return;
    }
#endif
    StoreWarp(tile, sum);
    __syncthreads();
  }

  /// The sums of a warp for its first kColumns blocks of tokens. Needs its own buffer alone: no barrier before or after.
  template <int kColumns>
  __device__ __forceinline__ void StoreWarp(const Tile& tile, const float (&sum)[kM16][kColumns][4]) {
    float* turn = reinterpret_cast<float*>(shared_) + threadIdx.x / 32 * kTurnTokens * kTurnStride;
#pragma unroll
    for (int n = 0; n < kColumns; n += 2) {
      float pair[kM16][2][4];
#pragma unroll
      for (int m = 0; m < kM16; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
          for (int i = 0; i < 4; ++i) pair[m][h][i] = sum[m][n + h][i];
      StoreTokens(tile, pair, turn, n * 8);
    }
  }

 private:
  // A warp's columns of y and the stride of a token in its buffer: 4 more than a multiple of 8 words, so that the eight rows and four
  // token pairs of a fragment hit 32 banks.
  static constexpr int kBlockColumns = kGated ? 8 : 16;
  static constexpr int kColumnStep = kGated ? kRowStep / 2 : kRowStep;
  static constexpr int kTurnStride = kM16 * kBlockColumns + 4;
  static constexpr int kTurnTokens = 16;
  static constexpr int kChunk = 8;  // columns that a thread stores at once
  // Split K: every thread's sums as float4s, and the buffers behind them.
  static constexpr int kSumBytes = kM16 * kN8 * kThreads * 16;
  static_assert(kThreads / 32 * kTurnTokens * kTurnStride * 4 <= kStages * kStageBytes);

  /// 16 tokens of the warp, from fragments to rows of y. `first` of the warp's tokens is the first.
  __device__ __forceinline__ void StoreTokens(const Tile& tile, const float (&v)[kM16][2][4], float* turn, int first) {
    const int packed_row = tile.out + warp_row_, token = warp_token_ + first;
    const int q = lane_ / 4, pair = lane_ % 4 * 2;
    const int64_t rows_before = static_cast<int64_t>(tile.expert) * a_.panels * kPanelRows;
#pragma unroll
    for (int m = 0; m < kM16; ++m) {
      float value[2][2][2];  // row half, n8 tile, token
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = packed_row + m * kRowStep + half * 8 + q;
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
    constexpr int kBlockChunks = kBlockColumns / kChunk, kRowChunks = kM16 * kBlockChunks;
    for (int c = lane_; c < kTurnTokens * kRowChunks; c += 32) {
      const int t = c / kRowChunks, chunk = c % kRowChunks;
      const int n = column + chunk / kBlockChunks * kColumnStep + chunk % kBlockChunks * kChunk;
      if (token + t >= tile.rows || n >= a_.N) continue;
      const int64_t row = tile.first_row + token + t;
      StoreChunk(turn + t * kTurnStride + chunk * kChunk, row, n);
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
            const uint32_t peer = AddressInBlock(mine + ((2 * p + h) * kM16 + m) * kThreads + threadIdx.x, s);
            float part[4];
            asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                         : "=f"(part[0]), "=f"(part[1]), "=f"(part[2]), "=f"(part[3])
                         : "r"(peer)
                         : "memory");
#pragma unroll
            for (int i = 0; i < 4; ++i) pair[m][h][i] += part[i];
          }
      }
      StoreTokens(tile, pair, turn, 2 * p * 8);
    }
    ClusterSync();  // peers may still be reading this CTA's sums
  }
#endif

  const LinearTileArgs& a_;
  uint8_t* shared_;
  int lane_, warp_row_, warp_token_;
};

}  // namespace billfish::cuda
