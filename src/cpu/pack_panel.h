// PanelPacker: the plain form of a PackedWeight -> panels (panel_layout.h). Portable; runs once per weight.
#pragma once

#include <cstddef>
#include <cstdint>

#include "billfish/weight.h"
#include "cpu/panel_layout.h"

namespace billfish::cpu {

/// The form a scheme packs to, before its numbers are seen (wide exponent spreads and negative E4M3 scales fall back to wider scales).
PanelLayout LayoutOf(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K);

class PanelPacker {
 public:
  /// Looks through the scales once to choose their packed form. The weight must outlive the packer.
  explicit PanelPacker(const PackedWeight& weight);

  const PanelLayout& layout() const { return layout_; }
  int64_t group() const { return group_; }
  /// Whether some row factor may differ from 1.
  bool has_factors() const { return has_factors_; }
  /// Writes panel p of expert e: layout().panel_bytes() at `out` (zeroed before), and its 32 factors unless `factors` is null.
  void PackPanel(int64_t e, int64_t p, std::byte* out, float* factors) const;

 private:
  /// Index of the scale of (row n, chunk c) of expert e.
  int64_t ScaleIndex(int64_t e, int64_t n, int c) const;
  int Code(int64_t e, int64_t n, int64_t k) const;  // 4-bit codes only
  bool ChunkIsZero(int64_t e, int64_t n, int c) const;
  /// Largest E8M0 byte of a row over chunks that are not all zero; false if the spread does not fit kMaxExponentDrop.
  bool RowExponent(int64_t e, int64_t n, int* top) const;
  void PackScales(int64_t e, int64_t n, int row, int first_chunk, int count, int top, uint8_t* scales, uint8_t* zeros) const;
  void PackCodes(int64_t e, int64_t n, int row, int first_chunk, int count, uint8_t* codes) const;

  const PackedWeight& weight_;
  PanelLayout layout_;
  int64_t group_ = 0;
  bool scale_in_factor_ = false;  ///< one scale per row
  bool has_factors_ = false;
};

}  // namespace billfish::cpu
