#include "cuda/plain_rows.h"

#include <cstring>

#include "core/rounding.h"
#include "cuda/tile_scales.h"

namespace billfish::cuda {
namespace {

constexpr size_t kAlignment = 256;

}  // namespace

PlainRows::PlainRows(const PackedWeight& weight, const TileForm& form, int64_t rows) : weight_(weight), form_(form) {
  const auto count = static_cast<size_t>(rows);
  row_bytes_ = static_cast<size_t>(weight.row_bytes());
  if (form.layout.scale != TileScale::kNone) {
    scale_bytes_ = static_cast<size_t>(weight.groups()) * static_cast<size_t>(DTypeBits(weight.scheme().scale)) / 8;
  }
  if (form.layout.zeros) zero_bytes_ = static_cast<size_t>(weight.groups());
  scales_ = RoundUp(count * row_bytes_, kAlignment);
  zeros_ = scales_ + RoundUp(count * scale_bytes_, kAlignment);
  bases_ = zeros_ + RoundUp(count * zero_bytes_, kAlignment);
  bytes_ = bases_ + RoundUp(count * sizeof(int32_t), kAlignment);
}

size_t PlainRows::BytesPerRow(const PackedWeight& weight, const TileForm& form) {
  const PlainRows one(weight, form, 1);
  return one.row_bytes_ + one.scale_bytes_ + one.zero_bytes_ + sizeof(int32_t);
}

float PlainRows::Copy(int64_t row, int64_t place, std::byte* buffer) const {
  const int64_t e = row / form_.packed_rows(), source = SourceRow(form_, row % form_.packed_rows());
  const auto at = static_cast<size_t>(place);
  std::byte* const base_at = buffer + bases_ + at * sizeof(int32_t);
  if (source < 0) {
    constexpr int32_t kPadding = -1;
    std::memcpy(base_at, &kPadding, sizeof kPadding);
    return 1;
  }
  const RowFactors factors = FactorsOf(weight_, form_.layout, e, source);
  std::memcpy(base_at, &factors.base, sizeof factors.base);
  const WeightParts& parts = weight_.parts();
  std::memcpy(buffer + at * row_bytes_, parts.codes.data() + static_cast<size_t>(e * form_.N + source) * row_bytes_, row_bytes_);
  const int64_t group_rows = weight_.scheme().group_rows;
  const auto scale_row = static_cast<size_t>(e * weight_.scale_rows() + (group_rows == 0 ? 0 : source / group_rows));
  if (scale_bytes_ > 0) std::memcpy(buffer + scales_ + at * scale_bytes_, parts.scales.data() + scale_row * scale_bytes_, scale_bytes_);
  if (zero_bytes_ > 0) std::memcpy(buffer + zeros_ + at * zero_bytes_, parts.zeros.data() + scale_row * zero_bytes_, zero_bytes_);
  return factors.row_scale;
}

PackArgs PlainRows::ArgsFor(const std::byte* buffer, std::byte* tiles) const {
  const auto at = [&](size_t offset) { return reinterpret_cast<const uint8_t*>(buffer + offset); };
  PackArgs args{};
  args.codes = at(0);
  args.scales = at(scales_);
  args.zeros = at(zeros_);
  args.bases = reinterpret_cast<const int32_t*>(at(bases_));
  args.tiles = reinterpret_cast<uint8_t*>(tiles);
  args.layout = form_.layout;
  args.source_scale = StoredScale(weight_.scheme().scale);
  args.group_columns = static_cast<int32_t>(weight_.groups() == 1 ? form_.K : weight_.scheme().group);
  args.row_bytes = weight_.row_bytes();
  args.groups = static_cast<int32_t>(weight_.groups());
  args.K = static_cast<int32_t>(form_.K);
  return args;
}

}  // namespace billfish::cuda
