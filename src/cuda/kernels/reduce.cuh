// Sums over a warp and a block, always in the same order.
#pragma once

namespace billfish::cuda {

/// The sum of all lanes, in all lanes.
__device__ __forceinline__ float WarpSum(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

/// The sum of all threads, in all threads. `warps` is shared memory for one value a warp; blockDim.x is a multiple of 32.
__device__ __forceinline__ float BlockSum(float v, float* warps) {
  v = WarpSum(v);
  const int lane = static_cast<int>(threadIdx.x % 32), count = static_cast<int>(blockDim.x / 32);
  if (lane == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  return WarpSum(lane < count ? warps[lane] : 0.0f);
}

}  // namespace billfish::cuda
