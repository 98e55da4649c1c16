// Rows of the embedding table, by token id, to the fp32 residual stream. A thread copies four neighbours, or what is left of them.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/model_args.h"

extern "C" __global__ void __launch_bounds__(256) embedding(const __grid_constant__ billfish::cuda::EmbeddingArgs args) {
  using namespace billfish::cuda;
  const int i = 4 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  AllowDependents();
  WaitForPredecessor();
  if (i >= args.H) return;
  const int64_t from = static_cast<int64_t>(args.ids[blockIdx.y]) * args.H + i;
  float* x = args.x + static_cast<int64_t>(blockIdx.y) * args.H + i;
  const float* wide = static_cast<const float*>(args.table) + from;
  const uint16_t* narrow = static_cast<const uint16_t*>(args.table) + from;
  if (args.H % 4 != 0) {
    for (int j = 0; j < min(4, args.H - i); ++j) x[j] = args.table_f32 != 0 ? wide[j] : FloatFromBF16(narrow[j]);
  } else if (args.table_f32 != 0) {
    *reinterpret_cast<float4*>(x) = *reinterpret_cast<const float4*>(wide);
  } else {
    const uint2 v = *reinterpret_cast<const uint2*>(narrow);
    *reinterpret_cast<float4*>(x) = float4{LowOfPair(v.x), HighOfPair(v.x), LowOfPair(v.y), HighOfPair(v.y)};
  }
}
