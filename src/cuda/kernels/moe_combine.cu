// The experts' outputs added up per token, in slot order, in fp32: y[t] = (addend[t]) + sum_j weights[t][j] * rows[position[t][j]].
//
//   BF_IN    type of rows: 0 = f32, 1 = bf16, 2 = fp16
//   BF_OUT   type of y and addend, likewise
//
// A thread adds four columns of one token.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/moe_args.h"

namespace {
using namespace billfish::cuda;

constexpr int kBatch = 8;  // slots

template <int kType>
__device__ __forceinline__ float LoadOne(const void* base, int64_t i) {
  if constexpr (kType == 0) {
    return static_cast<const float*>(base)[i];
  } else {
    const uint32_t bits = static_cast<const uint16_t*>(base)[i];
    return kType == 1 ? FloatFromBF16(bits) : FloatFromF16(bits);
  }
}

// Volatile, so that the compiler keeps them ahead of the sums.
__device__ __forceinline__ uint4 LoadRow16(const void* p) {
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}

__device__ __forceinline__ uint2 LoadRow8(const void* p) {
  uint2 v;
  asm volatile("ld.global.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}

template <int kType>
__device__ __forceinline__ float4 LoadFour(const void* base, int64_t i) {
  if constexpr (kType == 0) {
    const uint4 v = LoadRow16(static_cast<const float*>(base) + i);
    return float4{AsFloat(v.x), AsFloat(v.y), AsFloat(v.z), AsFloat(v.w)};
  } else {
    const uint2 v = LoadRow8(static_cast<const uint16_t*>(base) + i);
    if constexpr (kType == 1) {
      return float4{FloatFromBF16(v.x), AsFloat(v.x & 0xffff0000u), FloatFromBF16(v.y), AsFloat(v.y & 0xffff0000u)};
    } else {
      return float4{FloatFromF16(v.x & 0xffffu), FloatFromF16(v.x >> 16), FloatFromF16(v.y & 0xffffu), FloatFromF16(v.y >> 16)};
    }
  }
}

__device__ __forceinline__ uint32_t PairOut(float low, float high) {
  return BF_OUT == 1 ? BF16PairFromFloats(low, high) : F16PairFromFloats(low, high);
}

__device__ __forceinline__ void StoreOne(void* base, int64_t i, float v) {
  if constexpr (BF_OUT == 0) {
    static_cast<float*>(base)[i] = v;
  } else {
    static_cast<uint16_t*>(base)[i] = static_cast<uint16_t>(PairOut(v, 0.0f) & 0xffffu);
  }
}

__device__ __forceinline__ void StoreFour(void* base, int64_t i, float4 v) {
  if constexpr (BF_OUT == 0) {
    *reinterpret_cast<float4*>(static_cast<float*>(base) + i) = v;
  } else {
    *reinterpret_cast<uint2*>(static_cast<uint16_t*>(base) + i) = uint2{PairOut(v.x, v.y), PairOut(v.z, v.w)};
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8) moe_combine(const __grid_constant__ CombineArgs args) {
  const int t = blockIdx.x;
  const int h = (blockIdx.y * blockDim.x + threadIdx.x) * 4;
  AllowDependents();
  WaitForPredecessor();
  const int lane = threadIdx.x % 32;
  if (h - 4 * lane >= args.H) return;  // the whole warp
  const int32_t* position = args.position + static_cast<int64_t>(t) * args.top_k;
  const float* weights = args.weights == nullptr ? nullptr : args.weights + static_cast<int64_t>(t) * args.top_k;
  const int64_t out = t * args.y_stride + h;
  const bool whole = (args.H % 4 == 0) && (args.y_stride % 4 == 0) && reinterpret_cast<uint64_t>(args.y) % 16 == 0 &&
                     reinterpret_cast<uint64_t>(args.addend) % 16 == 0;
  if (whole) {
    float4 sum = args.addend == nullptr ? float4{0, 0, 0, 0} : LoadFour<BF_OUT>(args.addend, out - h + min(h, args.H - 4));
    // Lane j finds slot j for the others; all rows of a batch are under way before the first is added. A slot without a row reads row 0
    // and adds nothing.
    const int column = min(h, args.H - 4);
    for (int base = 0; base < args.top_k; base += kBatch) {
      const bool there = lane < kBatch && base + lane < args.top_k;
      const int my_row = there ? position[base + lane] : -1;
      const float my_weight = there && weights != nullptr ? weights[base + lane] : 1.0f;
      int row[kBatch];
      float4 v[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        row[i] = __shfl_sync(0xffffffffu, my_row, i);
        v[i] = LoadFour<BF_IN>(args.rows, static_cast<int64_t>(max(row[i], 0)) * args.H + column);
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const float w = __shfl_sync(0xffffffffu, my_weight, i);
        if (row[i] < 0) continue;
        sum.x = fmaf(w, v[i].x, sum.x), sum.y = fmaf(w, v[i].y, sum.y);
        sum.z = fmaf(w, v[i].z, sum.z), sum.w = fmaf(w, v[i].w, sum.w);
      }
    }
    if (h < args.H) StoreFour(args.y, out, sum);
    return;
  }
  for (int c = h; c < min(h + 4, args.H); ++c) {
    float sum = args.addend == nullptr ? 0.0f : LoadOne<BF_OUT>(args.addend, out + c - h);
    for (int j = 0; j < args.top_k; ++j) {
      const int64_t row = position[j];
      if (row < 0) continue;
      sum = fmaf(weights == nullptr ? 1.0f : weights[j], LoadOne<BF_IN>(args.rows, row * args.H + c), sum);
    }
    StoreOne(args.y, out + c - h, sum);
  }
}
