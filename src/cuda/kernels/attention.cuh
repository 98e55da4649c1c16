// What both attention kernels do with a tile of kAttentionKeys keys and values in shared memory: a warp's 16 rows of queries (tokens and
// the query heads that share the keys) against kKeys of them, online softmax in fp32, bf16 tensor cores.
//
//   BF_HEAD_DIM   a multiple of 16
//
// Lane l, q = l / 4, p = l % 4 holds rows q and q + 8. Scores are in units of log2: exp(x) = 2^(x log2 e), one instruction.
#pragma once

#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/model_args.h"

namespace billfish::cuda {

inline constexpr int kHeadDim = BF_HEAD_DIM;
static_assert(kHeadDim % 16 == 0 && kHeadDim >= 16 && kHeadDim <= 256);
inline constexpr int kRowBytes = AttentionRowBytes(kHeadDim);
inline constexpr int kTileBytes = kAttentionKeys * kRowBytes;
inline constexpr float kLog2E = 1.4426950408889634f;
/// Below every score and finite: the difference of two of them is no NaN.
inline constexpr float kLowest = -1e30f;

/// 2^x with results below 2^-126 flushed to zero; 2^-inf = 0.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// LoadMatrices, each matrix transposed.
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t address, uint32_t r[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// Begins the copy of keys or values first .. first + 63 of one kv head by kThreads threads; those from `end` on become zero: memory
/// behind the sequence may hold anything, and 0 * NaN is NaN.
template <int kThreads>
__device__ __forceinline__ void CopyTile(uint32_t shared, const uint16_t* head, int64_t first, int64_t end) {
  constexpr int kChunks = kHeadDim / 8;
  const uint16_t* from = head + first * kHeadDim;
  if (first + kAttentionKeys <= end) {
#pragma unroll
    for (int i = threadIdx.x; i < kAttentionKeys * kChunks; i += kThreads) {
      CopyAsync16(shared + i / kChunks * kRowBytes + i % kChunks * 16, from + i * 8);
    }
    return;
  }
  for (int i = threadIdx.x; i < kAttentionKeys * kChunks; i += kThreads) {
    const bool inside = first + i / kChunks < end;
    CopyAsync16Zeroed(shared + i / kChunks * kRowBytes + i % kChunks * 16, inside ? from + i * 8 : head, inside ? 16 : 0);
  }
}

/// The queries of a warp's rows as A operands, by pointers to rows q and q + 8.
struct Queries {
  uint32_t a[kHeadDim / 16][4];
  __device__ __forceinline__ void Load(const uint16_t* row, const uint16_t* row8, int p) {
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k) {
      a[k][0] = *reinterpret_cast<const uint32_t*>(row + 16 * k + 2 * p);
      a[k][1] = *reinterpret_cast<const uint32_t*>(row8 + 16 * k + 2 * p);
      a[k][2] = *reinterpret_cast<const uint32_t*>(row + 16 * k + 2 * p + 8);
      a[k][3] = *reinterpret_cast<const uint32_t*>(row8 + 16 * k + 2 * p + 8);
    }
  }
  __device__ __forceinline__ void Get(int k, uint32_t (&to)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = a[k][i];
  }
};

/// The same, read from shared memory for each tile: rows kRowBytes apart from `first` on, of which there are `rows`; the others repeat the
/// last one.
class SharedQueries {
 public:
  __device__ __forceinline__ SharedQueries(const void* first, int rows, int lane)
      : at_(SharedAddress(first) + min(lane % 16, rows - 1) * kRowBytes + lane / 16 * 16) {}
  __device__ __forceinline__ void Get(int k, uint32_t (&to)[4]) const { LoadMatrices(at_ + k * 32, to); }

 private:
  uint32_t at_;
};

/// Rows q (index 0) and q + 8 (index 1): largest score so far (of q . k, not scaled), sum of the weights that this lane has seen, weighted
/// values.
struct Softmax {
  float top[2] = {kLowest, kLowest};
  float sum[2] = {0, 0};
  float values[kHeadDim / 8][4] = {};

  /// Keys key0 .. key0 + kKeys of the tile; `keys` and `tile_values` are shared addresses of its first row, `position` the first key's
  /// place in the sequence. Row i sees the places low[i] .. high[i]; masks are skipped where the caller knows that all are seen.
  template <int kKeys, class AnyQueries>
  __device__ __forceinline__ void Step(const AnyQueries& queries, uint32_t keys, uint32_t tile_values, int key0, int position, float scale,
                                       bool masked, const int low[2], const int high[2], int lane) {
    float score[kKeys / 8][4] = {};
    const uint32_t key_row = keys + (key0 + lane % 8 + lane / 16 * 8) * kRowBytes + lane / 8 % 2 * 16;
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k) {
      uint32_t a[4];
      queries.Get(k, a);
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t b[4];
        LoadMatrices(key_row + n * 16 * kRowBytes + k * 32, b);
        Mma(score[2 * n], a, b);
        Mma(score[2 * n + 1], a, b + 2);
      }
    }
    if (masked) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int place = position + key0 + n * 8 + lane % 4 * 2 + i % 2;
          if (place < low[i / 2] || place > high[i / 2]) score[n][i] = -__int_as_float(0x7f800000);
        }
      }
    }
    float best[2] = {top[0], top[1]};
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) best[i / 2] = fmaxf(best[i / 2], score[n][i]);
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      best[row] = fmaxf(best[row], __shfl_xor_sync(0xffffffffu, best[row], 1));
      best[row] = fmaxf(best[row], __shfl_xor_sync(0xffffffffu, best[row], 2));
    }
    // A higher score is rare after the first tiles.
    if (__any_sync(0xffffffffu, best[0] > top[0] || best[1] > top[1])) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float shrink = Exp2((top[row] - best[row]) * scale);
        top[row] = best[row];
        sum[row] *= shrink;
#pragma unroll
        for (int n = 0; n < kHeadDim / 8; ++n) values[n][2 * row] *= shrink, values[n][2 * row + 1] *= shrink;
      }
    }
    const float offset[2] = {-top[0] * scale, -top[1] * scale};
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        score[n][i] = Exp2(fmaf(score[n][i], scale, offset[i / 2]));
        sum[i / 2] += score[n][i];
      }
    }
    const uint32_t value_row = tile_values + (key0 + lane % 16) * kRowBytes + lane / 16 * 16;
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const uint32_t a[4] = {PairFromFloats(score[2 * k][0], score[2 * k][1]), PairFromFloats(score[2 * k][2], score[2 * k][3]),
                             PairFromFloats(score[2 * k + 1][0], score[2 * k + 1][1]),
                             PairFromFloats(score[2 * k + 1][2], score[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < kHeadDim / 16; ++n) {
        uint32_t b[4];
        LoadMatricesTransposed(value_row + k * 16 * kRowBytes + n * 32, b);
        Mma(values[2 * n], a, b);
        Mma(values[2 * n + 1], a, b + 2);
      }
    }
  }

  /// Adds up the four lanes of each row; from here on `top` is in units of log2.
  __device__ __forceinline__ void Finish(float scale) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      sum[row] += __shfl_xor_sync(0xffffffffu, sum[row], 1);
      sum[row] += __shfl_xor_sync(0xffffffffu, sum[row], 2);
      top[row] *= scale;
    }
  }
};

/// Starts copying the tile of keys behind `tile`, if it begins before `end`, into the other stage: fetch(first key, stage). Returns when
/// `tile` has arrived for the whole block.
template <class Fetch>
__device__ __forceinline__ void AwaitTile(const Fetch& fetch, int tile, int end, int stage) {
  if (tile + kAttentionKeys < end) {
    fetch(tile + kAttentionKeys, stage ^ 1);
    WaitCopies<1>();
  } else {
    WaitCopies<0>();
  }
  __syncthreads();
}

}  // namespace billfish::cuda
