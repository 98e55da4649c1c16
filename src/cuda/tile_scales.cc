#include "cuda/tile_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "billfish/context.h"
#include "core/float_formats.h"
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

RowScaleWriter::RowScaleWriter(const PackedWeight& weight, const TileLayout& layout, int64_t e, int64_t row)
    : weight_(weight), layout_(layout), padding_(row < 0) {
  if (padding_ || !weight.scheme().has_scale()) return;
  group_ = GroupColumns(weight);
  first_ = FirstScale(weight, e, row);
  row_scale_ = RowScaleOf(weight, e, row);
  if (layout.scale == TileScale::kNone) {
    row_scale_ = format::LoadScale(weight.scheme().scale, weight.parts().scales.data(), first_);
  } else if (layout.scale == TileScale::kE8M0 && !layout.wide_scales) {
    const auto codes = CodesE8M0(weight, e, row);
    for (const int code : codes) base_ = std::max(base_, code);
    row_scale_ = std::ldexp(row_scale_, base_ - 127);
  } else if (layout.scale == TileScale::kE4M3) {
    row_scale_ = std::ldexp(row_scale_, kE4M3Rebase);
  }
}

void RowScaleWriter::Write(int64_t k, std::byte* out) const {
  const bool padding = padding_ || k >= weight_.K();
  const DType dtype = weight_.scheme().scale;
  const std::byte* scales = weight_.parts().scales.data();
  switch (layout_.scale) {
    case TileScale::kNone:
      return;
    case TileScale::kE8M0: {
      int code = padding ? 127 : static_cast<int>(scales[GroupAt(k)]);
      if (!layout_.wide_scales) code = padding ? kLargestE8M0 : RebasedE8M0(code, base_);
      out[0] = static_cast<std::byte>(code);
      return;
    }
    case TileScale::kE4M3: {
      out[0] = static_cast<std::byte>(E5M3FromE4M3(E4M3(k)));
      return;
    }
    case TileScale::kBF16:
    case TileScale::kF16: {
      if (!padding && dtype != DType::kF8E8M0 && dtype != DType::kF8E4M3) {
        std::memcpy(out, scales + GroupAt(k) * 2, 2);
        return;
      }
      const float value = padding ? 1.0f : format::LoadScale(dtype, scales, GroupAt(k));
      const uint16_t bits = layout_.scale == TileScale::kBF16 ? BF16FromF32(value) : F16FromF32(value);
      std::memcpy(out, &bits, sizeof bits);
      return;
    }
    case TileScale::kF32:
      break;
  }
  const float value = padding ? 1.0f : format::LoadScale(dtype, scales, GroupAt(k));
  std::memcpy(out, &value, sizeof value);
  return;
}

uint8_t RowScaleWriter::E4M3(int64_t k) const {
  return padding_ || k >= weight_.K() ? uint8_t{0x38} : static_cast<uint8_t>(weight_.parts().scales.data()[GroupAt(k)]);
}

uint8_t RowScaleWriter::Zero(int64_t k) const {
  return padding_ || k >= weight_.K() ? uint8_t{0} : static_cast<uint8_t>(weight_.parts().zeros.data()[GroupAt(k)]);
}

}  // namespace billfish::cuda
