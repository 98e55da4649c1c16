// Which packed form a weight takes on the GPU, and where its rows go.
//
// The form is chosen from the scheme and, for E8M0 scales, from the scales themselves:
//   codes    int4, E2M1, E4M3, bf16, fp16 as they are; fp32 weights have no packed form
//   group    the largest of 128, 64, 32, 16 that divides the scheme's group; a longer group's scale is repeated
//   scales   of the whole row go to row_scale; E2M1 keeps E8M0 and E4M3 scales as bytes; the other code books take them as bf16 (exact);
//            bf16, fp16 and fp32 scales stay what they are
//   E8M0     rebased per row to its largest scale. A row whose scales spread over more than 2^125 cannot be: the weight gets wide_scales.
#pragma once

#include <cstddef>
#include <cstdint>

#include "billfish/status.h"
#include "billfish/tensor.h"
#include "billfish/weight.h"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// The order of the packed rows.
enum class RowOrder : uint8_t {
  kPlain,               ///< packed row n is row n
  kGateUpConcatenated,  ///< from [gate; up], N = 2 I: gate and up of a feature in the two row halves of one thread, see SourceRow
  kGateUpInterleaved,   ///< the same from gate in the even rows and up in the odd ones
};

/// Everything that says how long a packed weight is and what its bytes mean.
struct TileForm {
  TileLayout layout;
  RowOrder order = RowOrder::kPlain;
  bool has_row_scale = false;  ///< an fp32 factor per packed row belongs to the weight
  int64_t E = 0, N = 0, K = 0;
  int64_t panels = 0, units = 0;

  size_t panel_bytes() const { return static_cast<size_t>(units) * static_cast<size_t>(layout.unit_bytes()); }
  size_t expert_bytes() const { return static_cast<size_t>(panels) * panel_bytes(); }
  /// Packed rows of one expert, padding included: the length of its row scales.
  int64_t packed_rows() const { return panels * kPanelRows; }
};

/// Scales of the type as they are stored; any type that is no scale counts as fp32.
TileScale StoredScale(DType dtype);

/// The layout of weights of this scheme whose rows have `groups` scales, but for wide_scales, which their scales decide. kUnsupported says
/// why there is none.
Result<TileLayout> LayoutOf(const QuantScheme& scheme, int64_t groups);

/// The form for the weight. Reads the scales where they decide. kUnsupported: fp32 codes, a group that 16 does not divide, a global scale
/// of 2^119 or more; kInvalidArgument: an odd number of rows in a gate-up order.
Result<TileForm> FormOf(const PackedWeight& weight, RowOrder order);

/// The row that packed row `row` holds, or -1 for padding. In the gate-up orders rows 16 w + q and 16 w + q + 8 of panel p are gate and up
/// of feature 32 p + 8 w + q.
int64_t SourceRow(const TileForm& form, int64_t row);

/// Whether kernels can multiply the form by activations of the type. kUnsupported says why not: bf16 or fp16 weights by the other type,
/// E8M0 scales by fp16, any type but these two.
Status CheckActivation(const TileLayout& layout, DType activation);

}  // namespace billfish::cuda
