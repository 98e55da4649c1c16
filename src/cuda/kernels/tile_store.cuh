// The end of a tile kernel: sums in registers -> row_scale, bias and activation in fp32 -> rows of y.
//
// A thread has rows q and q + 8 of y^T for tokens 2 p and 2 p + 1. Pairs of 16-bit values change places inside a warp, so that a thread
// stores two columns of a token; fp32 goes where it is. With a gated activation the packed rows alternate 8 gate and 8 up rows of the same
// features, so that both halves of h lie in one thread.
//
// Split K (dense, sm_90 and later): the CTAs of a cluster each sum a part of K, and each stores its share of the tile's tokens: the others
// send it their sums of them, and it adds all in the order of K: no workspace, no counters, the same result every time.
#pragma once

#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/mailbox.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/tile_shape.cuh"

namespace billfish::cuda {

/// kRowStep: from one block of 16 packed rows of a warp to its next.
template <int kRowStep>
class TileStore {
 public:
  /// warp_row, warp_token: the warp's first in the tile.
  __device__ __forceinline__ TileStore(const LinearTileArgs& args, const Tile& tile, int warp_row, int warp_token)
      : a_(args), tile_(tile), q_(threadIdx.x % 32 / 4), pair_(threadIdx.x % 4 * 2), packed_row_(tile.out + warp_row), token_(warp_token) {}

  /// Begins to bring what the sums are multiplied with and added to into L2.
  template <int kRows>
  __device__ __forceinline__ void Prefetch() const {
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      const int64_t row = RowOf(m, 0);
      if (a_.row_scale != nullptr) asm volatile("prefetch.global.L2 [%0];" ::"l"(a_.row_scale + row));
      if (a_.bias != nullptr) asm volatile("prefetch.global.L2 [%0];" ::"l"(a_.bias + row));
    }
  }

  /// The sums of a warp for its first kColumns blocks of tokens.
  template <int kRows, int kColumns>
  __device__ __forceinline__ void StoreWarp(const float (&sum)[kRows][kColumns][4]) const {
    Factors<kRows> factors;
    LoadFactors(factors);
#pragma unroll 1
    for (int n = 0; n < kColumns && token_ + n * 8 < tile_.rows; ++n) {
      float tokens[kRows][4];
      Pick(sum, n, tokens);
      StoreTokens(tokens, factors, n);
    }
  }

  /// Bytes that this block of the cluster gets from the others.
  __device__ __forceinline__ static int MailBytes(const LinearTileArgs& args, const Tile& tile) {
    const int pairs = (min(tile.rows, kTokens) + 15) / 16;  // of n8 tiles
    return (pairs - Rank() + args.splits - 1) / args.splits * (args.splits - 1) * PairFloats(args) * 4;
  }

  /// Split K, all threads that have sums: the block of rank r stores the pairs of n8 tiles r, r + splits, ... What the others send to it
  /// lies at `mail`, in the order of their ranks; nothing else may be in use there in any of the blocks. Without split the same as
  /// StoreWarp.
  template <int kRows>
  __device__ __forceinline__ void StoreSplit(const float (&sum)[kRows][kN8][4], uint8_t* mail, Mailbox& mailbox) const {
    const int rank = a_.splits > 1 ? Rank() : 0, most = (kN8 / 2 + a_.splits - 1) / a_.splits;
    // This thread's sums of pair p of n8 tiles that block `source` sends to `owner`: of the first n8 tile and block of rows.
    const auto place = [&](int source, int owner, int p) {
      const int from = (source - (source > owner)) * most + p / a_.splits;
      return reinterpret_cast<float4*>(mail) + from * (PairFloats(a_) / 4) + threadIdx.x;
    };
    const int half = PairFloats(a_) / 8;
    if (a_.splits > 1) {
#pragma unroll
      for (int p = 0; p < kN8 / 2; ++p) {
        const int owner = p % a_.splits;
        if (owner == rank || p * 16 >= tile_.rows) continue;
        float4* to = place(rank, owner, p);
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
          for (int m = 0; m < kRows; ++m) {
            const float(&v)[4] = sum[m][2 * p + h];
            mailbox.Send(to + h * half + m * kThreads, owner, make_float4(v[0], v[1], v[2], v[3]));
          }
      }
    }
    Factors<kRows> factors;
    LoadFactors(factors);
    if (a_.splits > 1) mailbox.Await();
#pragma unroll 1
    for (int n = 2 * rank; n < kN8 && n * 8 < tile_.rows; n += n % 2 == 0 ? 1 : 2 * a_.splits - 1) {
      float mine[kRows][4], total[kRows][4] = {};
      Pick(sum, n, mine);
#pragma unroll 1
      for (int s = 0; s < a_.splits; ++s) {
        const float4* from = place(s, rank, n / 2) + n % 2 * half;
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
          const float4 part = s == rank ? make_float4(mine[m][0], mine[m][1], mine[m][2], mine[m][3]) : from[m * kThreads];
          total[m][0] += part.x, total[m][1] += part.y, total[m][2] += part.z, total[m][3] += part.w;
        }
      }
      StoreTokens(total, factors, n);
    }
  }

 private:
  // Columns of y of 16 packed rows, and from one block of them to the warp's next.
  static constexpr int kBlockColumns = kGated ? 8 : 16;
  static constexpr int kColumnStep = kGated ? kRowStep / 2 : kRowStep;

  template <int kRows>
  struct Factors {
    float scale[kRows][2], bias[kRows][2];  // of rows q and q + 8
  };

  __device__ __forceinline__ static int Rank() {
    uint32_t rank = 0;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
    return static_cast<int>(rank);
  }
  /// Sums of the tile's rows for a pair of n8 tiles of every warp.
  __device__ __forceinline__ static int PairFloats(const LinearTileArgs& args) { return args.tile_panels * kTileThreads * kWarpsN * 8; }

  /// The row's place among row_scale and bias. Rows that do not exist take the last one's: their sums are not stored.
  __device__ __forceinline__ int64_t RowOf(int m, int half) const {
    const int row = min(packed_row_ + m * kRowStep + half * 8 + q_, a_.panels * kPanelRows - 1);
    return static_cast<int64_t>(tile_.expert) * a_.panels * kPanelRows + row;
  }

  template <int kRows>
  __device__ __forceinline__ void LoadFactors(Factors<kRows>& factors) const {
#pragma unroll
    for (int m = 0; m < kRows; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = RowOf(m, half);
        factors.scale[m][half] = a_.row_scale != nullptr ? a_.row_scale[row] : 1.0f;
        factors.bias[m][half] = a_.bias != nullptr ? a_.bias[row] : 0.0f;
      }
  }

  /// The sums of block n of 8 tokens. They are registers, whose numbers are known one by one only; what follows is there once.
  template <int kRows, int kColumns>
  __device__ __forceinline__ static void Pick(const float (&sum)[kRows][kColumns][4], int n, float (&picked)[kRows][4]) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (c != n) continue;
#pragma unroll
      for (int m = 0; m < kRows; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) picked[m][i] = sum[m][c][i];
    }
  }

  /// The warp's rows and block n of 8 tokens.
  template <int kRows>
  __device__ __forceinline__ void StoreTokens(const float (&sum)[kRows][4], const Factors<kRows>& factors, int n) const {
    const int first = token_ + n * 8, column = kGated ? packed_row_ / 2 : packed_row_;
    // Each thread's first number: fp32 of tokens 2 p, 2 p + 1, rows q; 16 bits of token q, rows 2 p, 2 p + 1.
    const bool wide = a_.out == OutType::kF32;
    const int token = first + (wide ? pair_ : q_), from = column + (wide ? q_ : pair_);
    const int64_t at = (tile_.first_row + token) * a_.y_stride + from;
    float* y32 = static_cast<float*>(a_.y) + at;
    uint16_t* y16 = static_cast<uint16_t*>(a_.y) + at;
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      float v[2][2];  // half of the rows, token
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i / 2][i % 2] = fmaf(factors.scale[m][i / 2], sum[m][i], factors.bias[m][i / 2]);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        if constexpr (kActivation != ActivationKind::kNone) {
          v[0][t] = Activate<kActivation>(v[0][t], kGated ? v[1][t] : 0.0f, a_.activation);
          if constexpr (!kGated) v[1][t] = Activate<kActivation>(v[1][t], 0.0f, a_.activation);
        }
      }
#pragma unroll
      for (int half = 0; half < kBlockColumns / 8; ++half) {
        const int to = m * kColumnStep + half * 8;
        if (wide) {
          if (from + to >= a_.N) continue;
          if (token < tile_.rows) y32[to] = v[half][0];
          if (token + 1 < tile_.rows) y32[to + a_.y_stride] = v[half][1];
          continue;
        }
        const uint32_t pair =
            Transpose(a_.out == OutType::kF16 ? F16PairFromFloats(v[half][0], v[half][1]) : BF16PairFromFloats(v[half][0], v[half][1]));
        if (token >= tile_.rows) continue;
        if (a_.y_aligned && from + to + 1 < a_.N) {
          *reinterpret_cast<uint32_t*>(y16 + to) = pair;
        } else {
          if (from + to < a_.N) y16[to] = static_cast<uint16_t>(pair);
          if (from + to + 1 < a_.N) y16[to + 1] = static_cast<uint16_t>(pair >> 16);
        }
      }
    }
  }

  const LinearTileArgs& a_;
  const Tile& tile_;
  int q_, pair_, packed_row_, token_;
};

}  // namespace billfish::cuda
