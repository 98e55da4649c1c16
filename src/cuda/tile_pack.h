// Packs a weight into the tiles of cuda/tile_layout.h on the CPU.
//
// Padding: codes that decode to zero (int4: the zero point, where 16 the code 15), scale 1. Kernels read activations beyond K as zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "billfish/weight.h"
#include "cuda/tile_form.h"

namespace billfish::cuda {

/// Panels [begin, end) of expert e, one after the other, to `tiles`: (end - begin) * form.panel_bytes() bytes; if form.has_row_scale their
/// row scales to `row_scale`: (end - begin) * 64. `form` is FormOf(weight, ...). Works on the calling thread.
void PackPanels(const PackedWeight& weight, const TileForm& form, int64_t e, int64_t begin, int64_t end, std::span<std::byte> tiles,
                std::span<float> row_scale);

}  // namespace billfish::cuda
