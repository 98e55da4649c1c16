// Tiles -> fp32, number by number from the drawing in cuda/tile_layout.h, with the arithmetic of a kernel. The opposite of
// cuda/tile_pack.h, written without it.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "core/float_formats.h"
#include "cuda/tile_form.h"

namespace billfish::cuda {

struct UnpackedTiles {
  std::vector<float> values;  ///< [N][K] in stored column order
  bool exact = true;          ///< every operand was representable in bf16 (fp16 for fp16 weights, and for E4M3 scales in both)
  bool padding_is_zero = true;
};

inline uint32_t Field(const std::byte* from, int64_t index, int bytes) {
  uint32_t value = 0;
  std::memcpy(&value, from + index * bytes, static_cast<size_t>(bytes));
  return value;
}

/// The bits of the code of row r, column c (0..63) of a block.
inline uint32_t TileCode(const TileLayout& layout, const std::byte* block, int r, int c) {
  const int w = r / 16, h = r / 8 % 2, q = r % 8;
  const int plane = c / 16, in_plane = c % 16, upper = in_plane / 8, pair = in_plane % 8 / 2, half = in_plane % 2;
  const int thread = 32 * w + 4 * q + pair, j = h + 2 * upper;
  if (layout.code_bits() == 16) return Field(block, ((plane * 128 + thread) * 4 + j) * 2 + half, 2);
  if (layout.code_bits() == 8) return Field(block, (plane / 2 * 128 + thread) * 16 + plane % 2 * 8 + j / 2 * 4 + half * 2 + 1 - j % 2, 1);
  const uint32_t word = Field(block, thread * 4 + plane, 4);
  if (layout.codes == TileCodes::kInt4) return word >> (4 * j + 16 * half) & 15u;
  const uint32_t bits = word >> (16 * half);
  switch (j) {
    case 0:
      return (bits >> 13 & 1) << 3 | (bits >> 4 & 7);
    case 1:
      return (bits >> 9 & 1) << 3 | (bits & 7);
    case 2:
      return (word >> (16 * (1 - half)) >> 3 & 1) << 3 | (bits >> 10 & 7);
    default:
      return (bits >> 15 & 1) << 3 | (bits >> 7 & 3) << 1 | (bits >> 14 & 1);
  }
}

inline UnpackedTiles UnpackTiles(const TileForm& form, const std::byte* tiles, const float* row_scale) {
  const TileLayout& layout = form.layout;
  UnpackedTiles out;
  out.values.resize(static_cast<size_t>(form.N * form.K));
  for (int64_t packed = 0; packed < form.packed_rows(); ++packed) {
    const int64_t row = SourceRow(form, packed);
    for (int64_t k = 0; k < form.units * layout.unit_k(); ++k) {
      const int r = static_cast<int>(packed % 64), in_unit = static_cast<int>(k % layout.unit_k());
      const std::byte* unit = tiles + ((packed / 64) * form.units + k / layout.unit_k()) * layout.unit_bytes();
      const uint32_t code = TileCode(layout, unit + in_unit / 64 * layout.block_bytes(), r, in_unit % 64);
      const int index = layout.groups() == 0 ? 0 : layout.scale_index(r, in_unit / layout.group);
      const std::byte* scales = unit + layout.code_bytes();
      float value = 0;
      switch (layout.codes) {
        case TileCodes::kInt4:
          value = static_cast<float>(code) - (layout.zeros ? static_cast<float>(Field(scales + layout.scale_bytes(), index, 1)) : 8.0f);
          break;
        case TileCodes::kE2M1:
          value = F32FromE2M1(static_cast<uint8_t>(code));
          break;
        case TileCodes::kE4M3:
          value = F32FromE4M3(static_cast<uint8_t>(code));
          break;
        case TileCodes::kBF16:
          value = F32FromBF16(static_cast<uint16_t>(code));
          break;
        case TileCodes::kF16:
          value = F32FromF16(static_cast<uint16_t>(code));
          break;
      }
      float after = 1;
      switch (layout.scale) {
        case TileScale::kNone:
          break;
        case TileScale::kE8M0: {
          const auto byte = Field(scales, index, 1);
          value *= layout.wide_scales ? F32FromE8M0(static_cast<uint8_t>(byte)) : std::ldexp(1.0f, static_cast<int>(byte) - 253);
          break;
        }
        case TileScale::kE4M3: {
          // The kernels' factors: 2^117 s in bf16, 2^5 s in fp16.
          const auto byte = Field(scales, index, 1);
          const float in_bf16 = value * 0x1p-126f * F32FromBF16(static_cast<uint16_t>((byte << 4) | 0x7000));
          const float in_f16 = value * 0x1p-14f * F32FromF16(static_cast<uint16_t>(byte << 7));
          out.exact = out.exact && in_bf16 == in_f16 && F32FromF16(F16FromF32(in_f16)) == in_f16;
          value = in_bf16;
          break;
        }
        case TileScale::kBF16:
          after = F32FromBF16(static_cast<uint16_t>(Field(scales, index, 2)));
          break;
        case TileScale::kF16:
          after = F32FromF16(static_cast<uint16_t>(Field(scales, index, 2)));
          break;
        case TileScale::kF32:
          std::memcpy(&after, scales + index * 4, 4);
          break;
      }
      const float held = layout.codes == TileCodes::kF16 ? F32FromF16(F16FromF32(value)) : F32FromBF16(BF16FromF32(value));
      out.exact = out.exact && held == value;
      value *= after;
      if (form.has_row_scale) value *= row_scale[packed];
      if (row < 0 || k >= form.K) {
        out.padding_is_zero = out.padding_is_zero && value == 0;
      } else {
        out.values[static_cast<size_t>(row * form.K + k)] = value;
      }
    }
  }
  return out;
}

}  // namespace billfish::cuda
