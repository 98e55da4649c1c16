// Rows of 16-bit numbers as the driver describes them to the copies of tensors.
#pragma once

#include <cstdint>

#include "billfish/status.h"
#include "cuda/linear_tile_args.h"

namespace billfish::cuda {

/// x[M][K], rows `stride` elements apart, for CopyBox: boxes of 64 columns x `rows` in the 128-byte swizzle of wgmma, zeros where there is
/// none. x and its rows start at multiples of 16 bytes.
Status DescribeBoxes(const void* x, int64_t K, int64_t M, int64_t stride, int rows, TensorMap& map);

}  // namespace billfish::cuda
