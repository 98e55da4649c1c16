// y = x . W^T + bias for matrices that a checkpoint keeps in fp32 or fp16, mostly routers and output heads: with bf16 activations no tensor
// core takes their values as they are.
//
// A warp computes one output of kRows rows of x in fp32; lanes stride over k, eight values at a time where rows are aligned for that.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/model_args.h"

namespace {
using namespace billfish::cuda;

constexpr int kRows = 4;

__device__ __forceinline__ float Weight(const LinearPlainArgs& args, int64_t i) {
  return args.weight_f32 != 0 ? static_cast<const float*>(args.weight)[i] : FloatFromF16(static_cast<const uint16_t*>(args.weight)[i]);
}

__device__ __forceinline__ void EightWeights(const LinearPlainArgs& args, int64_t i, float (&w)[8]) {
  if (args.weight_f32 != 0) {
    const float4* p = reinterpret_cast<const float4*>(static_cast<const float*>(args.weight) + i);
    const float4 a = p[0], b = p[1];
    w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w, w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
    return;
  }
  const uint4 v = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(args.weight) + i);
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) w[2 * j] = FloatFromF16(words[j] & 0xffffu), w[2 * j + 1] = FloatFromF16(words[j] >> 16);
}
}  // namespace

extern "C" __global__ void __launch_bounds__(256) linear_plain(const __grid_constant__ LinearPlainArgs args) {
  const int lane = threadIdx.x % 32;
  const int n = static_cast<int>(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  const int first = static_cast<int>(blockIdx.y) * kRows;
  AllowDependents();
  WaitForPredecessor();
  if (n >= args.N) return;
  const int64_t row = static_cast<int64_t>(n) * args.K;
  const uint16_t* x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) x[r] = args.x + min(first + r, args.M - 1) * args.x_stride;
  float sum[kRows] = {};
  if (args.K % 8 == 0 && args.x_stride % 8 == 0 && reinterpret_cast<uint64_t>(args.x) % 16 == 0) {
    for (int k = 8 * lane; k < args.K; k += 256) {
      float w[8];
      EightWeights(args, row + k, w);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const uint4 v = *reinterpret_cast<const uint4*>(x[r] + k);
        const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sum[r] = fmaf(w[2 * j], LowOfPair(words[j]), sum[r]);
          sum[r] = fmaf(w[2 * j + 1], HighOfPair(words[j]), sum[r]);
        }
      }
    }
  } else {
    for (int k = lane; k < args.K; k += 32) {
      const float w = Weight(args, row + k);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum[r] = fmaf(w, FloatFromBF16(x[r][k]), sum[r]);
    }
  }
  const float bias = args.bias == nullptr ? 0.0f : args.bias[n];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float total = WarpSum(sum[r]) + bias;
    if (lane == 0 && first + r < args.M) args.y[(first + r) * args.y_stride + n] = total;
  }
}
