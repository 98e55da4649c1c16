// The argument of the dense decode kernel, one struct passed by value. Shared with device code: freestanding.
#pragma once

#include "cuda/linear_tile_args.h"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

struct LinearDecodeArgs {
  // What the first copies of weights and of x wait for: in one line of the constant cache.
  const uint8_t* weight = nullptr;  ///< units in the layout of the kernel
  int32_t units = 0;
  int32_t blocks = 0;              ///< of rows, of a cluster
  int32_t clusters_with_more = 0;  ///< the first clusters have one more
  int32_t splits_log2 = 0;         ///< CTAs of a cluster, each with its slice of K
  const void* x = nullptr;         ///< [M][K], 16-bit
  int64_t x_stride = 0;            ///< elements from row to row
  int32_t M = 0, K = 0;

  int32_t x_row_bytes = 0;  ///< of a row of the slice of x in shared memory, an odd multiple of 16
  int32_t x_aligned = 1;    ///< x and its rows start at multiples of 16 bytes
  int32_t N = 0;
  OutType out = OutType::kBF16;
  void* y = nullptr;                 ///< [M][N]
  int64_t y_stride = 0;              ///< elements from row to row
  const float* row_scale = nullptr;  ///< [panels * 64], may be null
  const float* bias = nullptr;       ///< [panels * 64], may be null
};

}  // namespace billfish::cuda
