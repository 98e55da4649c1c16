// The argument of the kernel that multiplies one row by a small 16-bit weight, passed by value. Shared with device code: freestanding.
#pragma once

#include "cuda/linear_tile_args.h"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// Steps of a warp that registers hold, and the bytes of one, 16 rows and 64 columns. Further steps lie in shared memory.
inline constexpr int kLinearVectorHeld = 6, kLinearVectorStepBytes = 16 * 64 * 2;

struct LinearVectorArgs {
  const uint8_t* weight = nullptr;  ///< units in the layout of the kernel
  const void* x = nullptr;          ///< [K], 16-bit, 16 bytes aligned, K a multiple of 8
  void* y = nullptr;                ///< [N]
  const float* bias = nullptr;      ///< [panels * 64], may be null
  int32_t N = 0, K = 0;
  int32_t units = 0;           ///< steps of a block of 16 rows
  uint32_t per_unit = 0;       ///< 2^24 / units, rounded up: divides by the units what is less than 2^24 / units
  int32_t blocks = 0;          ///< of 16 rows, of a CTA
  int32_t ctas_with_more = 0;  ///< the first CTAs have one more
  OutType out = OutType::kBF16;
};

}  // namespace billfish::cuda
