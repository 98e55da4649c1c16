#include "cuda/tile_pack.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "cuda/tile_codes.h"
#include "cuda/tile_scales.h"

namespace billfish::cuda {
namespace {

// words[j][byte]: where a byte with the codes of columns c (low nibble) and c + 1 (high) of register a_j lands in a plane's word.
using NibbleTables = std::array<std::array<uint32_t, 256>, 4>;

NibbleTables MakeTables(uint32_t (*bits)(uint32_t, int)) {
  NibbleTables tables{};
  for (int j = 0; j < 4; ++j) {
    for (uint32_t pair = 0; pair < 256; ++pair) tables[static_cast<size_t>(j)][pair] = bits(pair, j);
  }
  return tables;
}

const NibbleTables& TablesOf(TileCodes codes) {
  static const NibbleTables int4 = MakeTables(Int4Bits);
  static const NibbleTables e2m1 = MakeTables(E2M1Bits);
  return codes == TileCodes::kInt4 ? int4 : e2m1;
}

// The 64 rows of one unit with K padded, scales taken out, in the order of the panel.
class PanelPacker {
 public:
  PanelPacker(const PackedWeight& weight, const TileForm& form, int64_t e, int64_t panel) : weight_(weight), layout_(form.layout) {
    for (int r = 0; r < kPanelRows; ++r) {
      const int64_t row = SourceRow(form, panel * kPanelRows + r);
      codes_[r] = row < 0 ? nullptr : weight.parts().codes.data() + (e * form.N + row) * weight.row_bytes();
      writers_.emplace_back(weight, layout_, e, row);
    }
    row_stride_ = layout_.unit_k() * layout_.code_bits() / 8;
    rows_.resize(static_cast<size_t>(kPanelRows * row_stride_));
  }

  float row_scale(int r) const { return writers_[r].row_scale(); }

  void Pack(int64_t unit, std::byte* out) {
    const int64_t k = unit * layout_.unit_k();
    for (int r = 0; r < kPanelRows; ++r) {
      LoadRow(r, k);
      std::byte* row = rows_.data() + r * row_stride_;
      for (int g = 0; g < layout_.groups(); ++g) {
        const int64_t first = k + g * layout_.group;
        const int index = layout_.scale_index(r, g);
        writers_[r].Write(first, out + layout_.code_bytes() + index * layout_.scale_size());
        if (layout_.scale == TileScale::kE4M3) {
          const uint8_t scale = writers_[r].E4M3(first);
          for (int i = g * layout_.group / 2; i < (g + 1) * layout_.group / 2; ++i) {
            row[i] = std::byte{CodesUnderE4M3(static_cast<uint8_t>(row[i]), scale)};
          }
        }
        if (layout_.zeros) {
          const uint8_t zero = writers_[r].Zero(first);
          out[layout_.code_bytes() + layout_.scale_bytes() + index] = std::byte{zero};
          PadWithZero(row, g, static_cast<int>(std::clamp<int64_t>(weight_.K() - first, 0, layout_.group)), zero, codes_[r] == nullptr);
        }
      }
    }
    for (int block = 0; block < layout_.unit_k() / kBlockK; ++block) PackBlock(block, out + block * layout_.block_bytes());
  }

 private:
  // Columns [k, k + unit_k) of row r as the plain form has them; padding decodes to zero where no zero point says otherwise.
  void LoadRow(int r, int64_t k) {
    std::byte* row = rows_.data() + r * row_stride_;
    const int bits = layout_.code_bits();
    const bool eights = layout_.codes == TileCodes::kInt4 && !layout_.zeros;
    const int64_t columns = codes_[r] == nullptr ? 0 : std::clamp<int64_t>(weight_.K() - k, 0, layout_.unit_k());
    const int64_t bytes = (columns * bits + 7) / 8;
    if (bytes > 0) std::memcpy(row, codes_[r] + k * bits / 8, static_cast<size_t>(bytes));
    if (bytes < row_stride_) std::memset(row + bytes, eights ? 0x88 : 0, static_cast<size_t>(row_stride_ - bytes));
    if (bits == 4 && columns % 2 != 0) row[bytes - 1] = (row[bytes - 1] & std::byte{0x0f}) | (eights ? std::byte{0x80} : std::byte{0});
  }

  // Columns from `columns` on of group g take the group's zero point as their code.
  void PadWithZero(std::byte* row, int g, int columns, uint8_t zero, bool padding_row) const {
    if (padding_row || columns == 0) return;
    const auto code = static_cast<unsigned>(std::min<int>(zero, 15));
    for (int c = columns; c < layout_.group; ++c) {
      std::byte& pair = row[(g * layout_.group + c) / 2];
      pair = c % 2 == 0 ? (pair & std::byte{0xf0}) | std::byte(code) : (pair & std::byte{0x0f}) | std::byte(code << 4);
    }
  }

  void PackBlock(int block, std::byte* out) const {
    switch (layout_.code_bits()) {
      case 4:
        return PackNibbles(block, out);
      case 8:
        return PackWide<1>(block, out);
      default:
        return PackWide<2>(block, out);
    }
  }

  const std::byte* RowOf(int thread, int half, int block) const {
    const int r = thread / 32 * 16 + half * 8 + thread % 32 / 4;
    return rows_.data() + r * row_stride_ + block * kBlockK * layout_.code_bits() / 8;
  }

  void PackNibbles(int block, std::byte* out) const {
    const NibbleTables& tables = TablesOf(layout_.codes);
    for (int t = 0; t < kTileThreads; ++t) {
      const std::byte* low = RowOf(t, 0, block) + t % 4;
      const std::byte* high = RowOf(t, 1, block) + t % 4;
      uint32_t words[kPlanes];
      for (int plane = 0; plane < kPlanes; ++plane) {
        words[plane] = tables[0][static_cast<uint8_t>(low[plane * 8])] | tables[1][static_cast<uint8_t>(high[plane * 8])] |
                       tables[2][static_cast<uint8_t>(low[plane * 8 + 4])] | tables[3][static_cast<uint8_t>(high[plane * 8 + 4])];
      }
      std::memcpy(out + t * 16, words, sizeof words);
    }
  }

  // Codes of kSize bytes: pairs of columns move whole. 8-bit blocks hold two planes side by side, 16-bit blocks one.
  template <int kSize>
  void PackWide(int block, std::byte* out) const {
    constexpr int kPair = 2 * kSize;
    for (int plane = 0; plane < kPlanes; ++plane) {
      for (int t = 0; t < kTileThreads; ++t) {
        std::byte* to = kSize == 1 ? out + ((plane / 2 * kTileThreads + t) * 2 + plane % 2) * 8 : out + (plane * kTileThreads + t) * 16;
        for (int j = 0; j < 4; ++j) {
          std::memcpy(to + j * kPair, RowOf(t, j % 2, block) + (plane * 16 + t % 4 * 2 + j / 2 * 8) * kSize, kPair);
        }
      }
    }
  }

  const PackedWeight& weight_;
  TileLayout layout_;
  const std::byte* codes_[kPanelRows];
  std::vector<RowScaleWriter> writers_;
  int row_stride_ = 0;
  std::vector<std::byte> rows_;
};

}  // namespace

void PackPanels(const PackedWeight& weight, const TileForm& form, int64_t e, int64_t begin, int64_t end, std::span<std::byte> tiles,
                std::span<float> row_scale) {
  for (int64_t panel = begin; panel < end; ++panel) {
    PanelPacker packer(weight, form, e, panel);
    std::byte* out = tiles.data() + (panel - begin) * static_cast<int64_t>(form.panel_bytes());
    for (int64_t unit = 0; unit < form.units; ++unit) packer.Pack(unit, out + unit * form.layout.unit_bytes());
    if (!form.has_row_scale) continue;
    for (int r = 0; r < kPanelRows; ++r) row_scale[static_cast<size_t>((panel - begin) * kPanelRows + r)] = packer.row_scale(r);
  }
}

}  // namespace billfish::cuda
