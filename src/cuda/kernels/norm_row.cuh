// RMS norm of an fp32 row to a 16-bit row in shared memory, by every block that multiplies it: a launch less than a norm of its own.
#pragma once

#include "cuda/kernels/conditional_load.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/norm_rows_args.h"

namespace billfish::cuda {

/// One row of the args, by a block of kWarps warps, a multiple of four. With `stores` the block also writes x + delta to args.sum and the
/// 16-bit row to args.y, each where it is not null: one block of a row does. `sums` is shared memory for kWarps floats, 16 bytes aligned.
/// y = 16-bit((x + delta) / sqrt(mean((x + delta)^2) + eps) * weight). Reads what earlier kernels wrote: Run comes behind
/// WaitForPredecessor, while the constructor fetches what no kernel writes. Run ends with a barrier of the block.
template <int kWarps>
class NormRow {
 public:
  /// Values that a thread keeps in registers, in fours; rows that are longer are read twice.
  static constexpr int kKept = 2;

  __device__ __forceinline__ NormRow(const NormRowsArgs& args, int row)
      : args_(args), first_(static_cast<int64_t>(row) * args.H), of_mean_(1.0f / static_cast<float>(args.H)) {
#pragma unroll
    for (int j = 0; j < kKept; ++j) LoadIf(Item(j) < args.H, args.weight + Item(j), weight_[j]);
  }

  __device__ __forceinline__ void Run(uint8_t* row, bool stores, float* sums) const {
    float4 kept[kKept] = {}, delta[kKept] = {};
#pragma unroll
    for (int j = 0; j < kKept; ++j) {
      LoadIf(Item(j) < args_.H, args_.x + first_ + Item(j), kept[j]);
      LoadIf(Item(j) < args_.H && args_.delta != nullptr, args_.delta + first_ + Item(j), delta[j]);
    }
    float squares = 0;
#pragma unroll
    for (int j = 0; j < kKept; ++j) {
      kept[j] = Sum(kept[j], delta[j]);
      squares += Squares(kept[j]);
    }
#pragma unroll 1
    for (int j = kKept; Item(j) < args_.H; ++j) squares += Squares(Load(Item(j)));
    squares = WarpSum(squares);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = squares;
    __syncthreads();
    float total = 0;
#pragma unroll
    for (int s = 0; s < kWarps; s += 4) {
      const float4 v = *reinterpret_cast<const float4*>(sums + s);
      total += (v.x + v.y) + (v.z + v.w);
    }
    const float factor = rsqrtf(total * of_mean_ + args_.eps);
#pragma unroll
    for (int j = 0; j < kKept; ++j) {
      if (Item(j) < args_.H) Store(row, Item(j), kept[j], weight_[j], factor, stores);
    }
#pragma unroll 1
    for (int j = kKept; Item(j) < args_.H; ++j) {
      Store(row, Item(j), Load(Item(j)), *reinterpret_cast<const float4*>(args_.weight + Item(j)), factor, stores);
    }
    __syncthreads();
  }

 private:
  static __device__ __forceinline__ int Item(int j) { return 4 * (static_cast<int>(threadIdx.x) + j * 32 * kWarps); }
  static __device__ __forceinline__ float4 Sum(float4 a, float4 b) { return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w}; }
  static __device__ __forceinline__ float Squares(float4 v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }
  __device__ __forceinline__ float4 Load(int i) const {
    const float4 v = *reinterpret_cast<const float4*>(args_.x + first_ + i);
    return args_.delta == nullptr ? v : Sum(v, *reinterpret_cast<const float4*>(args_.delta + first_ + i));
  }
  __device__ __forceinline__ void Store(uint8_t* row, int i, float4 v, float4 w, float factor, bool stores) const {
    if (stores && args_.sum != nullptr) *reinterpret_cast<float4*>(args_.sum + first_ + i) = v;
    const uint2 pairs{PairFromFloats(v.x * factor * w.x, v.y * factor * w.y), PairFromFloats(v.z * factor * w.z, v.w * factor * w.w)};
    *reinterpret_cast<uint2*>(row + 2 * i) = pairs;
    if (stores && args_.y != nullptr) *reinterpret_cast<uint2*>(static_cast<uint16_t*>(args_.y) + first_ + i) = pairs;
  }

  const NormRowsArgs& args_;
  int64_t first_;
  float of_mean_;
  float4 weight_[kKept] = {};
};

}  // namespace billfish::cuda
