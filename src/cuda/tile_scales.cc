#include "cuda/tile_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>

#include "billfish/context.h"
#include "core/parallel.h"
#include "cuda/tile_codes.h"
#include "format/row_decoder.h"
#include "format/scale_codec.h"

namespace billfish::cuda {
namespace {

int64_t FirstScale(const PackedWeight& weight, int64_t e, int64_t row) {
  const int64_t group_rows = weight.scheme().group_rows;
  return (e * weight.scale_rows() + (group_rows == 0 ? 0 : row / group_rows)) * weight.groups();
}

int64_t GroupColumns(const PackedWeight& weight) { return weight.groups() == 1 ? weight.K() : weight.scheme().group; }

float RowScaleOf(const PackedWeight& weight, int64_t e, int64_t row) {
  return weight.scheme().row_scale ? weight.parts().row_scale[static_cast<size_t>(e * weight.N() + row)] : 1.0f;
}

std::span<const uint8_t> CodesE8M0(const PackedWeight& weight, int64_t e, int64_t row) {
  return {weight.parts().scales.as<uint8_t>() + FirstScale(weight, e, row), static_cast<size_t>(weight.groups())};
}

bool GroupIsZero(const PackedWeight& weight, int64_t e, int64_t row, int64_t group) {
  const std::byte* codes = weight.parts().codes.data() + (e * weight.N() + row) * weight.row_bytes();
  const int64_t columns = GroupColumns(weight), end = std::min(weight.K(), (group + 1) * columns);
  for (int64_t k = group * columns; k < end; ++k) {
    if ((format::LoadCode(CodeBook::kE2M1, codes, k) & 7u) != 0) return false;
  }
  return true;
}

// Whether a row can be rebased: every factor that matters stays in range, and the row scale takes the power of two without rounding.
bool CanRebase(const PackedWeight& weight, int64_t e, int64_t row) {
  const auto codes = CodesE8M0(weight, e, row);
  uint8_t low = 255, base = 0;
  for (const uint8_t code : codes) low = std::min(low, code), base = std::max(base, code);
  const float row_scale = RowScaleOf(weight, e, row);
  const float rebased = std::ldexp(row_scale, base - 127);
  if (weight.scheme().row_scale && !(std::isfinite(rebased) && std::ldexp(rebased, 127 - base) == row_scale)) return false;
  if (low + kLargestE8M0 - base >= kSmallestE8M0) return true;
  for (size_t g = 0; g < codes.size(); ++g) {
    if (codes[g] + kLargestE8M0 - base < kSmallestE8M0 && !GroupIsZero(weight, e, row, static_cast<int64_t>(g))) return false;
  }
  return true;
}

}  // namespace

Result<ScaleNeeds> NeedsOf(const PackedWeight& weight, const TileLayout& layout) {
  ScaleNeeds needs;
  const bool whole_row = weight.scheme().has_scale() && layout.scale == TileScale::kNone;
  needs.row_scale = whole_row || weight.scheme().row_scale || layout.scale == TileScale::kE4M3;
  if (layout.scale == TileScale::kE8M0) {
    std::atomic<bool> wide = false;
    ParallelFor(DefaultThreads(), weight.E() * weight.N(), 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end && !wide; ++i) {
        if (!CanRebase(weight, i / weight.N(), i % weight.N())) wide = true;
      }
    });
    needs.wide = wide;
    if (!needs.wide) needs.row_scale = true;
  }
  if (layout.scale == TileScale::kE4M3 && weight.scheme().row_scale) {
    for (size_t i = 0; i < weight.parts().row_scale.size(); ++i) {
      const float scale = weight.parts().row_scale[i];
      if (std::isfinite(scale) && !std::isfinite(std::ldexp(scale, kE4M3Rebase))) {
        return Status(ErrorCode::kUnsupported,
                      fmt::format("row {} of the weight has the row scale {}; a GPU kernel multiplies it by 512 and "
                                  "needs it below 2^119: divide the scale by a power of two and undo it after the "
                                  "layer",
                                  i, scale));
      }
    }
  }
  return needs;
}

RowFactors FactorsOf(const PackedWeight& weight, const TileLayout& layout, int64_t e, int64_t row) {
  RowFactors factors;
  if (!weight.scheme().has_scale()) return factors;
  factors.row_scale = RowScaleOf(weight, e, row);
  if (layout.scale == TileScale::kNone) {
    factors.row_scale = format::LoadScale(weight.scheme().scale, weight.parts().scales.data(), FirstScale(weight, e, row));
  } else if (layout.scale == TileScale::kE8M0 && !layout.wide_scales) {
    int32_t base = 0;
    for (const uint8_t code : CodesE8M0(weight, e, row)) base = std::max<int32_t>(base, code);
    factors.base = base;
    factors.row_scale = std::ldexp(factors.row_scale, base - 127);
  } else if (layout.scale == TileScale::kE4M3) {
    factors.row_scale = std::ldexp(factors.row_scale, kE4M3Rebase);
  }
  return factors;
}

}  // namespace billfish::cuda
