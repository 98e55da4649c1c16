// The 4-bit layouts that models ship with: what kernels are compiled for ahead of time. Others are compiled when a model first needs them.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

inline constexpr TileLayout kMxfp4{TileCodes::kE2M1, TileScale::kE8M0, 32, false, false};
inline constexpr TileLayout kNvfp4{TileCodes::kE2M1, TileScale::kE4M3, 16, false, false};
inline constexpr TileLayout kInt4G128{TileCodes::kInt4, TileScale::kBF16, 128, false, false};
inline constexpr TileLayout kShippedLayouts[] = {kMxfp4, kNvfp4, kInt4G128};

}  // namespace billfish::cuda
