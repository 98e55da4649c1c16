// The macros by which a kernel that multiplies by packed weights is told what it gets.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// For KernelSpec::defines: those of kernels/weight.cuh (the layout; BF_ACT: fp16 activations if `half`, else bf16), then the kernel's own.
std::vector<std::pair<std::string, std::string>> WeightDefines(const TileLayout& layout, bool half,
                                                               std::initializer_list<std::pair<const char*, int>> own);

}  // namespace billfish::cuda
