// What a kernel needs to make its 16-bit input rows from the residual stream (kernels/norm_row.cuh). Shared with device code:
// freestanding.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// Rows of a call for which a norm is part of the kernel behind it; more are worth a launch.
inline constexpr int64_t kMostNormedRows = 16;

/// sum[m] = x[m] + delta[m]; y[m] = 16-bit(sum[m] / sqrt(mean(sum[m]^2) + eps) * weight). H is a multiple of 4 and pointers of 16 bytes.
/// `sum` must not be x: a block that starts late still reads x after another one has stored.
struct NormRowsArgs {
  const float* x = nullptr;      ///< [M][H]
  const float* delta = nullptr;  ///< [M][H] or null
  const float* weight = nullptr;
  float* sum = nullptr;  ///< [M][H] or null
  void* y = nullptr;     ///< [M][H] or null
  float eps = 0;
  int32_t M = 0, H = 0;
};

}  // namespace billfish::cuda
