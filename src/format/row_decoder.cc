#include "format/row_decoder.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/float_formats.h"
#include "format/scale_codec.h"

namespace billfish::format {

uint32_t LoadCode(CodeBook codes, const std::byte* row, int64_t j) {
  switch (CodeBits(codes)) {
    case 4:
      return (static_cast<uint32_t>(row[j / 2]) >> (j % 2 * 4)) & 0xFu;
    case 8:
      return static_cast<uint32_t>(row[j]);
    case 16: {
      uint16_t bits = 0;
      std::memcpy(&bits, row + j * 2, sizeof bits);
      return bits;
    }
    default: {
      uint32_t bits = 0;
      std::memcpy(&bits, row + j * 4, sizeof bits);
      return bits;
    }
  }
}

float CodeValue(CodeBook codes, uint32_t code) {
  switch (codes) {
    case CodeBook::kInt4:
      return static_cast<float>(code);
    case CodeBook::kE2M1:
      return F32FromE2M1(static_cast<uint8_t>(code));
    case CodeBook::kE4M3:
      return F32FromE4M3(static_cast<uint8_t>(code));
    case CodeBook::kBF16:
      return F32FromBF16(static_cast<uint16_t>(code));
    case CodeBook::kF16:
      return F32FromF16(static_cast<uint16_t>(code));
    case CodeBook::kF32:
      break;
  }
  return std::bit_cast<float>(code);
}

void DecodeRow(const PackedWeight& weight, int64_t e, int64_t n, std::span<float> out) {
  const QuantScheme& scheme = weight.scheme();
  const WeightParts& parts = weight.parts();
  const int64_t K = weight.K();
  const std::byte* row = parts.codes.data() + (e * weight.N() + n) * weight.row_bytes();
  if (!scheme.has_scale()) {
    for (int64_t j = 0; j < K; ++j) out[j] = CodeValue(scheme.codes, LoadCode(scheme.codes, row, j));
    return;
  }
  const int64_t group = scheme.group == 0 ? K : scheme.group;
  const int64_t scale_row = scheme.group_rows == 0 ? 0 : n / scheme.group_rows;
  const int64_t first_scale = (e * weight.scale_rows() + scale_row) * weight.groups();
  const bool has_zeros = scheme.zero == ZeroPoint::kPerGroup;
  for (int64_t g = 0; g < weight.groups(); ++g) {
    const float scale = LoadScale(scheme.scale, parts.scales.data(), first_scale + g);
    float zero = 0;
    if (scheme.codes == CodeBook::kInt4) zero = has_zeros ? static_cast<float>(parts.zeros.data()[first_scale + g]) : 8.0f;
    const int64_t end = std::min(K, (g + 1) * group);
    for (int64_t j = g * group; j < end; ++j) {
      out[j] = (CodeValue(scheme.codes, LoadCode(scheme.codes, row, j)) - zero) * scale;
    }
  }
  if (scheme.row_scale) {
    const float factor = parts.row_scale[static_cast<size_t>(e * weight.N() + n)];
    for (int64_t j = 0; j < K; ++j) out[j] *= factor;
  }
}

}  // namespace billfish::format
