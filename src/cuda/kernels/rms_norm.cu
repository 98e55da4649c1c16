// RMSNorm of fp32 rows to bf16, after adding the output of the previous matrix to the residual stream. One block a row.
//
// Rows of up to kVectors * 4 * 1024 values whose length is a multiple of four stay in registers, and their weights, which no kernel
// writes, arrive while the previous kernel ends. Others are read twice, the second time from the first-level cache.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/parameters.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/model_args.h"

namespace {
using namespace billfish::cuda;

constexpr int kVectors = 2;

__device__ __forceinline__ float Factor(float squares, const RmsNormArgs& args, float* warps) {
  return 1.0f / sqrtf(BlockSum(squares, warps) / static_cast<float>(args.H) + args.eps);
}

__device__ __forceinline__ void Short(const RmsNormArgs& args, float* x, const float* delta, uint16_t* y, float* warps) {
  float4 v[kVectors] = {}, w[kVectors];
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = 4 * static_cast<int>(threadIdx.x + j * blockDim.x);
    if (i < args.H) w[j] = *reinterpret_cast<const float4*>(args.weight + i);
  }
  WaitForPredecessor();
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = 4 * static_cast<int>(threadIdx.x + j * blockDim.x);
    if (i >= args.H) continue;
    v[j] = *reinterpret_cast<const float4*>(x + i);
    if (delta != nullptr) {
      const float4 d = *reinterpret_cast<const float4*>(delta + i);
      v[j].x += d.x, v[j].y += d.y, v[j].z += d.z, v[j].w += d.w;
      *reinterpret_cast<float4*>(x + i) = v[j];
    }
    squares += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
  }
  const float factor = Factor(squares, args, warps);
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = 4 * static_cast<int>(threadIdx.x + j * blockDim.x);
    if (i >= args.H) continue;
    *reinterpret_cast<uint2*>(y + i) = uint2{BF16PairFromFloats(v[j].x * factor * w[j].x, v[j].y * factor * w[j].y),
                                             BF16PairFromFloats(v[j].z * factor * w[j].z, v[j].w * factor * w[j].w)};
  }
}

__device__ __forceinline__ void Long(const RmsNormArgs& args, float* x, const float* delta, uint16_t* y, float* warps) {
  WaitForPredecessor();
  float squares = 0;
  for (int i = threadIdx.x; i < args.H; i += blockDim.x) {
    if (delta != nullptr) x[i] += delta[i];
    squares += x[i] * x[i];
  }
  const float factor = Factor(squares, args, warps);
  for (int i = threadIdx.x; i < args.H; i += blockDim.x) {
    y[i] = static_cast<uint16_t>(BF16PairFromFloats(x[i] * factor * args.weight[i], 0.0f));
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(1024) rms_norm(const __grid_constant__ RmsNormArgs args) {
  FetchParameters(args);
  __shared__ float warps[32];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * args.H;
  const float* delta = args.delta == nullptr ? nullptr : args.delta + row;
  AllowDependents();
  if (args.H % 4 == 0 && args.H <= kVectors * 4 * static_cast<int>(blockDim.x)) {
    Short(args, args.x + row, delta, args.y + row, warps);
  } else {
    Long(args, args.x + row, delta, args.y + row, warps);
  }
}
