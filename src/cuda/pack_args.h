// Arguments of src/cuda/kernels/pack_tiles.cu. Freestanding.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// Rows of a weight in plain form (billfish/weight.h) but in the order of the packed rows, a multiple of 64 of them.
struct PackArgs {
  const uint8_t* codes;   ///< [rows][row_bytes]; what a padding row holds is not read
  const uint8_t* scales;  ///< [rows][groups] of source_scale, where layout.scale is not kNone
  const uint8_t* zeros;   ///< [rows][groups], where layout.zeros
  const int32_t* bases;   ///< [rows]: the row's largest E8M0 code where they are rebased, else 0; -1 for a padding row
  uint8_t* tiles;         ///< [rows / 64][units] units of the layout
  TileLayout layout;
  TileScale source_scale;         ///< of the plain form
  int32_t group_columns, groups;  ///< of the plain form; K and 1 for the whole row
  int32_t K;
  int64_t row_bytes;
};

}  // namespace billfish::cuda
