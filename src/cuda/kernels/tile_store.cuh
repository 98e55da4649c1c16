// The end of a tile kernel: sums in registers -> row_scale, bias and activation in fp32 -> rows of y.
//
// A thread has rows q and q + 8 of y^T for tokens 2 p and 2 p + 1. Pairs of 16-bit values change places inside a warp, so that a thread
// stores two columns of a token; fp32 goes where it is. With a gated activation the packed rows alternate 8 gate and 8 up rows of the same
// features, so that both halves of h lie in one thread.
//
// Split K (dense, sm_90 and later): the CTAs of a cluster each sum a part of K, and each stores its share of the tile's tokens: the others
// send it their sums of them, and it adds all in the order of K: no workspace, no counters, the same result every time. StoreHalf is for
// two blocks, each of which has one half of the tokens.
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
      : a_(args), tile_(tile), packed_row_(tile.out + warp_row), token_(warp_token) {
    // All that follows from them alone would lie in registers while the sums are being made.
    int lane = threadIdx.x % 32;
    asm volatile("" : "+r"(lane), "+r"(packed_row_));
    q_ = lane / 4, pair_ = lane % 4 * 2;
  }

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
    StoreColumns<0, kColumns>(sum, factors);
  }

#if __CUDA_ARCH__ >= 900
  /// Bytes that this block of two gets from the other for StoreHalf.
  __device__ __forceinline__ static int HalfMailBytes(const LinearTileArgs& args, const Tile& tile) {
    const int blocks = (tile.rows + 7) / 8 - (Rank() == 0 ? 0 : kN8 / 2);
    return max(0, min(blocks, kN8 / 2)) * args.tile_panels * kTileThreads * 16;
  }

  /// K split into two parts, all threads that have sums: each of the two blocks stores one half of the tokens. What the other sends to it
  /// lies at `mail`, where nothing else may be in use in any of them.
  template <int kRows>
  __device__ __forceinline__ void StoreHalf(float (&sum)[kRows][kN8][4], uint8_t* mail, Mailbox& mailbox) const {
    if (Rank() == 0) {
      ExchangeAndStore<0>(sum, mail, mailbox);
    } else {
      ExchangeAndStore<1>(sum, mail, mailbox);
    }
  }
#endif

  /// Bytes that this block of the cluster gets from the others.
  __device__ __forceinline__ static int MailBytes(const LinearTileArgs& args, const Tile& tile) {
    const int pairs = min((tile.rows + 15) / 16, kN8 / 2);  // of n8 tiles of a warp, as StoreSplit sends them
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
#if __CUDA_ARCH__ >= 900
  template <int kRank, int kRows>
  __device__ __forceinline__ void ExchangeAndStore(float (&sum)[kRows][kN8][4], uint8_t* mail, Mailbox& mailbox) const {
    constexpr int kHalf = kN8 / 2, kMine = kRank * kHalf, kOther = kHalf - kMine;
    const int block = a_.tile_panels * kTileThreads;  // messages for eight tokens
    float4* mine = reinterpret_cast<float4*>(mail) + threadIdx.x;
    const uint32_t there = AddressInBlock(mine, 1 - kRank), tell = mailbox.TellIn(1 - kRank);
    Factors<kRows> factors;
    LoadFactors(factors);
#pragma unroll
    for (int n = 0; n < kHalf; ++n) {
      if ((kOther + n) * 8 >= tile_.rows) break;
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        const float(&v)[4] = sum[m][kOther + n];
        Mailbox::Send(there + (n * block + m * kThreads) * 16, tell, make_float4(v[0], v[1], v[2], v[3]));
      }
    }
    mailbox.Await();
#pragma unroll
    for (int n = 0; n < kHalf; ++n) {
      if ((kMine + n) * 8 >= tile_.rows) break;
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        float(&v)[4] = sum[m][kMine + n];
        const float4 other = mine[n * block + m * kThreads];
        v[0] += other.x, v[1] += other.y, v[2] += other.z, v[3] += other.w;
      }
    }
    StoreColumns<kMine, kHalf>(sum, factors);
  }
#endif

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

  /// kCount blocks of tokens from kFirst on.
  template <int kFirst, int kCount, int kRows, int kColumns>
  __device__ __forceinline__ void StoreColumns(const float (&sum)[kRows][kColumns][4], const Factors<kRows>& factors) const {
    // Straight on where that is little code, which comes from memory. Beside too many sums there are no registers for more than one way.
    constexpr bool kTwoWays = kRows * (BF_GROUPED ? kN8 : kCount) <= 16, kUnrolled = kTwoWays && kActivation == ActivationKind::kNone;
    const int first = token_ + kFirst * 8, column = kGated ? packed_row_ / 2 : packed_row_;
    // A vote: were the compiler not told that all threads go one way, it would take the rest of the kernel for divergent.
    const bool whole = kTwoWays && __all_sync(~0u, a_.out == (kHalf ? OutType::kF16 : OutType::kBF16) && a_.y_aligned &&
                                                       column + (kRows - 1) * kColumnStep + kBlockColumns <= a_.N);
    uint16_t* y = static_cast<uint16_t*>(a_.y) + (tile_.first_row + first + q_) * a_.y_stride + column + (Odd() && !kGated ? 6 : 0) + pair_;
    const auto store_whole = [&](const float(&v)[4], int m, int n) {
      StoreWhole(v, factors, m, first + n * 8 + q_ < tile_.rows, y + m * kColumnStep);
    };
    if (kUnrolled && whole) {
#pragma unroll
      for (int n = 0; n < (kUnrolled ? kCount : 0); ++n, y += 8 * a_.y_stride) {
        if (first + n * 8 >= tile_.rows) break;
#pragma unroll
        for (int m = 0; m < kRows; ++m) store_whole(sum[m][kFirst + n], m, n);
      }
      return;
    }
#pragma unroll 1
    for (int n = 0; n < kCount && first + n * 8 < tile_.rows; ++n, y += 8 * a_.y_stride) {
      float tokens[kRows][4];
      Pick(sum, kFirst + n, tokens);
      if (!kUnrolled && whole) {
#pragma unroll
        for (int m = 0; m < kRows; ++m) store_whole(tokens[m], m, n);
      } else {
        StoreTokens(tokens, factors, kFirst + n);
      }
    }
  }

  /// Row scale, bias, activation: of rows q and q + 8 (gated: features q) and tokens 2 p, 2 p + 1.
  template <int kRows>
  __device__ __forceinline__ void Finish(const float (&sum)[4], const Factors<kRows>& factors, int m, float (&v)[2][2]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i / 2][i % 2] = fmaf(factors.scale[m][i / 2], sum[i], factors.bias[m][i / 2]);
    if constexpr (kActivation != ActivationKind::kNone) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        v[0][t] = Activate<kActivation>(v[0][t], kGated ? v[1][t] : 0.0f, a_.activation);
        if constexpr (!kGated) v[1][t] = Activate<kActivation>(v[1][t], 0.0f, a_.activation);
      }
    }
  }

  /// Block m of rows and eight tokens where all columns exist, in the type of x and aligned.
  template <int kRows>
  __device__ __forceinline__ void StoreWhole(const float (&sum)[4], const Factors<kRows>& factors, int m, bool stored, uint16_t* y) const {
    float v[2][2];
    Finish(sum, factors, m, v);
    const uint32_t low = Transpose(PairFromFloats(v[0][0], v[0][1]));
    if constexpr (kGated) {
      if (stored) *reinterpret_cast<uint32_t*>(y) = low;
    } else {
      // Of the columns 2 p, 2 p + 1 of both halves two threads make four each that lie side by side.
      const uint32_t high = Transpose(PairFromFloats(v[1][0], v[1][1])), got = __shfl_xor_sync(~0u, Odd() ? low : high, 1);
      if (stored) *reinterpret_cast<uint2*>(y) = Odd() ? make_uint2(got, high) : make_uint2(low, got);
    }
  }
  __device__ __forceinline__ bool Odd() const { return pair_ % 4 != 0; }

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
      Finish(sum[m], factors, m, v);
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
