// RMS norm of a few fp32 rows to 16-bit rows in shared memory, by every block that multiplies them: a launch less than a norm of its own.
#pragma once

#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/norm_rows_args.h"

namespace billfish::cuda {

/// `rows` begins at the first row's shared memory, `pitch` bytes (a multiple of 8) from row to row; M <= kWarps. With `stores` the block
/// also writes x + delta to args.sum and the 16-bit rows to args.y, each where it is not null: one block of the grid does. `sums` is shared
/// memory for kWarps floats. y = 16-bit((x + delta) / sqrt(mean((x + delta)^2) + eps) * weight); kWarps / M warps share a row, and their
/// number decides the order of its sum. Reads what earlier kernels wrote: Run comes behind WaitForPredecessor, while the constructor
/// fetches what no kernel writes. Run ends with a barrier of the block.
template <int kWarps>
class NormRows {
 public:
  /// Values that a thread keeps in registers, in fours; rows that are longer are read twice.
  static constexpr int kKept = 2;

  __device__ __forceinline__ NormRows(const NormRowsArgs& args, int warp, int lane) : args_(args) {
    warps_ = kWarps;
    while (warps_ * args.M > kWarps) warps_ /= 2;
    row_ = warp / warps_, thread_ = warp % warps_ * 32 + lane;
#pragma unroll
    for (int j = 0; j < kKept; ++j) {
      if (Item(j) < args.H) weight_[j] = *reinterpret_cast<const float4*>(args.weight + Item(j));
    }
  }

  __device__ __forceinline__ void Run(void* rows, int pitch, bool stores, float* sums) const {
    const bool active = row_ < args_.M;
    float4 kept[kKept] = {};
    float squares = 0;
    if (active) {
#pragma unroll
      for (int j = 0; j < kKept; ++j) {
        if (Item(j) < args_.H) kept[j] = Load(Item(j));
      }
#pragma unroll
      for (int j = 0; j < kKept; ++j) {
        if (Item(j) < args_.H) squares += Visit(kept[j], Item(j), stores);
      }
#pragma unroll 1
      for (int j = kKept; Item(j) < args_.H; ++j) squares += Visit(Load(Item(j)), Item(j), stores);
    }
    squares = WarpSum(squares);
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (threadIdx.x % 32 == 0) sums[warp] = squares;
    __syncthreads();
    if (active) {
      const int lane = static_cast<int>(threadIdx.x) % 32;
      const float total = WarpSum(lane < warps_ ? sums[row_ * warps_ + lane] : 0.0f);
      const float factor = 1.0f / sqrtf(total / static_cast<float>(args_.H) + args_.eps);
      uint8_t* to = static_cast<uint8_t*>(rows) + row_ * pitch;
#pragma unroll
      for (int j = 0; j < kKept; ++j) {
        if (Item(j) < args_.H) Store(to, Item(j), kept[j], weight_[j], factor, stores);
      }
#pragma unroll 1
      for (int j = kKept; Item(j) < args_.H; ++j) {
        Store(to, Item(j), Load(Item(j)), *reinterpret_cast<const float4*>(args_.weight + Item(j)), factor, stores);
      }
    }
    __syncthreads();
  }

 private:
  __device__ __forceinline__ int Item(int j) const { return 4 * (thread_ + j * 32 * warps_); }
  __device__ __forceinline__ int64_t Place(int i) const { return static_cast<int64_t>(row_) * args_.H + i; }
  __device__ __forceinline__ float4 Load(int i) const {
    float4 v = *reinterpret_cast<const float4*>(args_.x + Place(i));
    if (args_.delta != nullptr) {
      const float4 d = *reinterpret_cast<const float4*>(args_.delta + Place(i));
      v.x += d.x, v.y += d.y, v.z += d.z, v.w += d.w;
    }
    return v;
  }
  __device__ __forceinline__ float Visit(float4 v, int i, bool stores) const {
    if (stores && args_.sum != nullptr) *reinterpret_cast<float4*>(args_.sum + Place(i)) = v;
    return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  __device__ __forceinline__ void Store(uint8_t* to, int i, float4 v, float4 w, float factor, bool stores) const {
    const uint2 pairs{PairFromFloats(v.x * factor * w.x, v.y * factor * w.y), PairFromFloats(v.z * factor * w.z, v.w * factor * w.w)};
    *reinterpret_cast<uint2*>(to + 2 * i) = pairs;
    if (stores && args_.y != nullptr) *reinterpret_cast<uint2*>(static_cast<uint16_t*>(args_.y) + Place(i)) = pairs;
  }

  const NormRowsArgs& args_;
  int warps_, row_, thread_;
  float4 weight_[kKept];
};

}  // namespace billfish::cuda
