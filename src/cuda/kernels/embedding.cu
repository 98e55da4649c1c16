// Rows of the embedding table, by token id, to the fp32 residual stream. A block copies one row.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/model_args.h"

extern "C" __global__ void __launch_bounds__(256) embedding(const __grid_constant__ billfish::cuda::EmbeddingArgs args) {
  using namespace billfish::cuda;
  AllowDependents();
  WaitForPredecessor();
  const int64_t row = static_cast<int64_t>(args.ids[blockIdx.x]) * args.H;
  float* x = args.x + static_cast<int64_t>(blockIdx.x) * args.H;
  for (int i = threadIdx.x; i < args.H; i += blockDim.x) {
    x[i] = args.table_f32 != 0 ? static_cast<const float*>(args.table)[row + i]
                               : FloatFromBF16(static_cast<const uint16_t*>(args.table)[row + i]);
  }
}
