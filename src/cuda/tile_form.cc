#include "cuda/tile_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/tile_scales.h"

namespace billfish::cuda {
namespace {

Result<TileCodes> CodesOf(CodeBook codes) {
  switch (codes) {
    case CodeBook::kInt4:
      return TileCodes::kInt4;
    case CodeBook::kE2M1:
      return TileCodes::kE2M1;
    case CodeBook::kE4M3:
      return TileCodes::kE4M3;
    case CodeBook::kBF16:
      return TileCodes::kBF16;
    case CodeBook::kF16:
      return TileCodes::kF16;
    case CodeBook::kF32:
      break;
  }
  return Status(ErrorCode::kUnsupported,
                "a GPU kernel for f32 weights was asked for; kernels multiply 16-bit numbers, so convert the weight to bf16 or f16");
}

// One-byte scales are folded into E2M1 codes only; the other code books take them as bf16.
TileScale ScaleOf(const QuantScheme& scheme) {
  const TileScale stored = StoredScale(scheme.scale);
  const bool byte = stored == TileScale::kE8M0 || stored == TileScale::kE4M3;
  return byte && scheme.codes != CodeBook::kE2M1 ? TileScale::kBF16 : stored;
}

}  // namespace

TileScale StoredScale(DType dtype) {
  switch (dtype) {
    case DType::kF8E8M0:
      return TileScale::kE8M0;
    case DType::kF8E4M3:
      return TileScale::kE4M3;
    case DType::kBF16:
      return TileScale::kBF16;
    case DType::kF16:
      return TileScale::kF16;
    default:
      return TileScale::kF32;
  }
}

Result<TileLayout> LayoutOf(const QuantScheme& scheme, int64_t groups) {
  TileLayout layout;
  BILLFISH_ASSIGN_OR_RETURN(layout.codes, CodesOf(scheme.codes));
  if (!scheme.has_scale()) return layout;
  layout.zeros = scheme.zero == ZeroPoint::kPerGroup;
  if (groups == 1) {
    // One scale a row is a row scale. A second factor per row would have to be rounded into it: then the scale stays a group's.
    if (!scheme.row_scale) {
      layout.group = layout.zeros ? 128 : 0;
      return layout;
    }
    layout.group = 128;
  } else {
    if (scheme.group % 16 != 0) {
      return Status(ErrorCode::kUnsupported, fmt::format("a GPU kernel for groups of {} columns was asked for; a scale must be shared by a "
                                                         "multiple of 16 columns or by the whole row: quantise the weight so",
                                                         scheme.group));
    }
    layout.group = 128;
    while (scheme.group % layout.group != 0) layout.group /= 2;
  }
  layout.scale = ScaleOf(scheme);
  return layout;
}

Result<TileForm> FormOf(const PackedWeight& weight, RowOrder order) {
  TileForm form;
  BILLFISH_ASSIGN_OR_RETURN(form.layout, LayoutOf(weight.scheme(), weight.groups()));
  form.order = order;
  form.E = weight.E(), form.N = weight.N(), form.K = weight.K();
  if (order == RowOrder::kPlain) {
    form.panels = TilePanels(form.N);
  } else {
    if (form.N % 2 != 0) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("a weight of {} rows was to be packed as gate and up; their numbers of rows must be the same", form.N));
    }
    form.panels = DivideUp(form.N / 2, kPanelRows / 2);
  }
  form.units = TileUnits(form.layout, form.K);
  BILLFISH_ASSIGN_OR_RETURN(const ScaleNeeds needs, NeedsOf(weight, form.layout));
  form.layout.wide_scales = needs.wide;
  form.has_row_scale = needs.row_scale;
  return form;
}

int64_t SourceRow(const TileForm& form, int64_t row) {
  if (form.order == RowOrder::kPlain) return row < form.N ? row : -1;
  const int64_t panel = row / kPanelRows, r = row % kPanelRows;
  const int64_t features = form.N / 2, feature = panel * 32 + r / 16 * 8 + r % 8;
  if (feature >= features) return -1;
  const bool up = r / 8 % 2 == 1;
  if (form.order == RowOrder::kGateUpInterleaved) return 2 * feature + (up ? 1 : 0);
  return up ? features + feature : feature;
}

Status CheckActivation(const TileLayout& layout, DType activation) {
  if (activation != DType::kBF16 && activation != DType::kF16) {
    return {ErrorCode::kUnsupported,
            fmt::format("activations of {} were given to a GPU kernel; it takes BF16 or F16", DTypeName(activation))};
  }
  const bool half = activation == DType::kF16;
  if (layout.codes == TileCodes::kBF16 && half) {
    return {ErrorCode::kUnsupported, "f16 activations were given to bf16 weights; f16 has not their range: use bf16 activations"};
  }
  if (layout.codes == TileCodes::kF16 && !half) {
    return {ErrorCode::kUnsupported, "bf16 activations were given to f16 weights; bf16 has not their precision: use f16 activations"};
  }
  if (layout.scale == TileScale::kE8M0 && half) {
    return {ErrorCode::kUnsupported,
            "f16 activations were given to a weight with E8M0 scales; f16 has not their range: use bf16 activations"};
  }
  return OkStatus();
}

}  // namespace billfish::cuda
