// What a weight's scales ask of the packed form, and the factors of its rows.
#pragma once

#include <cstdint>

#include "billfish/status.h"
#include "billfish/weight.h"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

struct ScaleNeeds {
  bool wide = false;       ///< E8M0 scales that cannot be rebased exactly
  bool row_scale = false;  ///< a factor per row beside the scales
};

/// What the weight's scales ask of the layout. kUnsupported: a row scale whose product with 2^9 is infinite (E4M3 scales).
Result<ScaleNeeds> NeedsOf(const PackedWeight& weight, const TileLayout& layout);

/// What packing needs to know of a row as a whole.
struct RowFactors {
  float row_scale = 1;  ///< the fp32 factor of the packed row
  int32_t base = 0;     ///< the row's largest E8M0 code where the layout rebases them
};

RowFactors FactorsOf(const PackedWeight& weight, const TileLayout& layout, int64_t e, int64_t row);

}  // namespace billfish::cuda
