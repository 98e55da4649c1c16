// RMSNorm of fp32 rows to bf16, after adding the output of the previous matrix to the residual stream. One block a row.
//
// A row is read twice: the second time from the first-level cache, into which the thread itself has written it.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/model_args.h"

extern "C" __global__ void __launch_bounds__(1024) rms_norm(const __grid_constant__ billfish::cuda::RmsNormArgs args) {
  using namespace billfish::cuda;
  __shared__ float warps[32];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * args.H;
  float* x = args.x + row;
  const float* delta = args.delta == nullptr ? nullptr : args.delta + row;
  uint16_t* y = args.y + row;
  AllowDependents();
  WaitForPredecessor();
  float squares = 0;
  if (args.H % 4 == 0) {
    for (int i = 4 * threadIdx.x; i < args.H; i += 4 * blockDim.x) {
      float4 v = *reinterpret_cast<const float4*>(x + i);
      if (delta != nullptr) {
        const float4 d = *reinterpret_cast<const float4*>(delta + i);
        v.x += d.x, v.y += d.y, v.z += d.z, v.w += d.w;
        *reinterpret_cast<float4*>(x + i) = v;
      }
      squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
  } else {
    for (int i = threadIdx.x; i < args.H; i += blockDim.x) {
      if (delta != nullptr) x[i] += delta[i];
      squares += x[i] * x[i];
    }
  }
  const float factor = 1.0f / sqrtf(BlockSum(squares, warps) / static_cast<float>(args.H) + args.eps);
  if (args.H % 4 == 0) {
    for (int i = 4 * threadIdx.x; i < args.H; i += 4 * blockDim.x) {
      const float4 v = *reinterpret_cast<const float4*>(x + i), w = *reinterpret_cast<const float4*>(args.weight + i);
      *reinterpret_cast<uint2*>(y + i) =
          uint2{BF16PairFromFloats(v.x * factor * w.x, v.y * factor * w.y), BF16PairFromFloats(v.z * factor * w.z, v.w * factor * w.w)};
    }
  } else {
    for (int i = threadIdx.x; i < args.H; i += blockDim.x) {
      y[i] = static_cast<uint16_t>(BF16PairFromFloats(x[i] * factor * args.weight[i], 0.0f));
    }
  }
}
