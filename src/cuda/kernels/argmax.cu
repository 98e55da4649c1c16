// The place of the largest logit of each row. Every block finds its own, the last block of a row to end the whole: the result does not
// depend on which it is.
//
// A value and its place make one integer whose order is that of the values, then of falling places.
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/model_args.h"

namespace {
using namespace billfish::cuda;

__device__ __forceinline__ uint64_t Key(float value, int place) {
  const uint32_t bits = __float_as_uint(value + 0.0f);  // -0 equals +0
  uint32_t order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  if ((bits & 0x7fffffffu) > 0x7f800000u) order = 0;
  return static_cast<uint64_t>(order) << 32 | ~static_cast<uint32_t>(place);
}

__device__ __forceinline__ uint64_t BlockMax(uint64_t key, uint64_t* warps) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) key = max(key, __shfl_xor_sync(0xffffffffu, key, step));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = key;
  __syncthreads();
  key = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x / 32); ++w) key = max(key, warps[w]);
  __syncthreads();
  return key;
}
}  // namespace

extern "C" __global__ void __launch_bounds__(256) argmax(const __grid_constant__ ArgmaxArgs args) {
  __shared__ uint64_t warps[8];
  __shared__ bool is_last;
  AllowDependents();
  WaitForPredecessor();
  uint64_t key = 0;
  const int64_t row = blockIdx.y;
  const float* values = args.values + row * args.count;
  uint64_t* partial = args.partial + row * gridDim.x;
  const int step = static_cast<int>(gridDim.x * blockDim.x);
#pragma unroll 8
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < args.count; i += step) key = max(key, Key(values[i], i));
  key = BlockMax(key, warps);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = key;
    __threadfence();
    is_last = atomicAdd(args.arrivals + row, 1) == static_cast<int>(gridDim.x) - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  key = threadIdx.x < gridDim.x ? __ldcg(partial + threadIdx.x) : 0;
  key = BlockMax(key, warps);
  if (threadIdx.x == 0) {
    args.id[row] = static_cast<int32_t>(~static_cast<uint32_t>(key));
    args.arrivals[row] = 0;
  }
}
