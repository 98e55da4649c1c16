// y = x . W^T + bias for the small matrices that a checkpoint keeps in fp32, mostly routers: their values fit no tensor-core type.
//
// A warp computes one output of kRows rows of x; lanes stride over k.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/model_args.h"

extern "C" __global__ void __launch_bounds__(256) linear_f32(const __grid_constant__ billfish::cuda::LinearF32Args args) {
  using namespace billfish::cuda;
  constexpr int kRows = 4;
  const int lane = threadIdx.x % 32;
  const int n = static_cast<int>(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  const int first = static_cast<int>(blockIdx.y) * kRows;
  AllowDependents();
  WaitForPredecessor();
  if (n >= args.N) return;
  const float* weight = args.weight + static_cast<int64_t>(n) * args.K;
  const uint16_t* x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) x[r] = args.x + static_cast<int64_t>(min(first + r, args.M - 1)) * args.K;
  float sum[kRows] = {};
  for (int k = lane; k < args.K; k += 32) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) sum[r] = fmaf(weight[k], FloatFromBF16(x[r][k]), sum[r]);
  }
  const float bias = args.bias == nullptr ? 0.0f : args.bias[n];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float total = WarpSum(sum[r]) + bias;
    if (lane == 0 && first + r < args.M) args.y[(first + r) * args.y_stride + n] = total;
  }
}
