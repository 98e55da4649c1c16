// Scales of the packed form: bytes, bases and row scales from those of the plain form.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

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

/// The scales of one row of the weight in packed form.
class RowScaleWriter {
 public:
  /// Borrows the weight. row -1 is a row of padding.
  RowScaleWriter(const PackedWeight& weight, const TileLayout& layout, int64_t e, int64_t row);

  /// The fp32 factor of the row; 1 where there is none.
  float row_scale() const { return row_scale_; }
  /// The code of the row's largest scale, for E8M0 scales that are rebased; else 0.
  int base() const { return base_; }
  /// Writes the scale of the columns [k, k + layout.group), layout.scale_size() bytes. k may be beyond K: padding.
  void Write(int64_t k, std::byte* out) const;
  /// The stored scale of the column, which changes its codes too; 1 in padding. Precondition: layout.scale == TileScale::kE4M3.
  uint8_t E4M3(int64_t k) const;
  /// The zero point of the column, 0..16; 0 beyond K and in padding rows. Precondition: layout.zeros.
  uint8_t Zero(int64_t k) const;

 private:
  int64_t GroupAt(int64_t k) const { return first_ + k / group_; }

  const PackedWeight& weight_;
  TileLayout layout_;
  bool padding_;
  int64_t group_ = 1;  ///< of the scheme; K for the whole row
  int64_t first_ = 0;  ///< index of the row's first scale
  int base_ = 0;       ///< kE8M0: the row's largest code
  float row_scale_ = 1;
};

}  // namespace billfish::cuda
