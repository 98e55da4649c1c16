// Router logits to expert ids and weights, one warp per token. Dynamic shared memory: 8 * top_k bytes a warp.
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/route.cuh"

extern "C" __global__ void __launch_bounds__(256) moe_route(const __grid_constant__ billfish::cuda::RouteArgs args) {
  using namespace billfish::cuda;
  extern __shared__ float shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int t = blockIdx.x * (blockDim.x / 32) + warp;
  AllowDependents();
  WaitForPredecessor();
  if (t >= args.T) return;
  float* weights = shared + warp * 2 * args.top_k;
  RouteRow(args, t, args.logits + t * args.stride, weights, reinterpret_cast<int32_t*>(weights + args.top_k), lane);
}
