// What a MoeLayer holds on a GPU, for callers inside the library that have more to do in a launch than its experts.
#pragma once

#include "backend/cuda_moe.h"
#include "billfish/moe.h"

namespace billfish::moe {

struct GpuAccess {
  /// Null for a layer that is not on a GPU.
  static const backend::CudaMoe* Of(const MoeLayer& layer);
};

}  // namespace billfish::moe
