// Loads that happen or not without a branch around them, into registers that keep what they had: many are under way at a time, where the
// compiler would wait for one before it begins the next.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// 16 aligned bytes.
__device__ __forceinline__ void LoadIf(bool wanted, const float* from, float4& to) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %5, 0; @p ld.global.v4.f32 {%0,%1,%2,%3}, [%4]; }"
               : "+f"(to.x), "+f"(to.y), "+f"(to.z), "+f"(to.w)
               : "l"(from), "r"(static_cast<int>(wanted)));
}

}  // namespace billfish::cuda
