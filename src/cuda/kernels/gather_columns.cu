// x'[m][j] = x[m][perm[j]]: puts activations into the column order of an act-order weight. 16-bit elements, moved as they are.
//
// A thread keeps the perm of its column for kRows rows. Reads are scattered within a row, which L1 and L2 hold; writes are contiguous.
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/tile_layout.h"

namespace {
constexpr int kRows = 8;
}  // namespace

// x: M rows, x_stride elements apart; perm: K column numbers; y: [M][K]. Grid: (ceil(K / blockDim.x), ceil(M / kRows)).
extern "C" __global__ void __launch_bounds__(256)
    gather_columns(const uint16_t* x, int64_t x_stride, const int32_t* perm, uint16_t* y, int64_t M, int64_t K) {
  using namespace billfish::cuda;
  AllowDependents();
  const int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= K) return;
  const int64_t from = perm[j];
  WaitForPredecessor();
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kRows;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (first + i < M) y[(first + i) * K + j] = x[(first + i) * x_stride + from];
  }
}
