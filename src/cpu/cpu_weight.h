// CpuWeight: a weight in the panel form of panel_layout.h, made once from a PackedWeight and then read by every CPU kernel.
//
// One flat, position-independent image, so that it can be written to a file and mapped back:
//
//   offset 0   ImageHeader (256 bytes)
//   factors    fp32 [E, panels * 32]      present if header.factors != 0    row factor of every output row, 1 for padding
//   columns    int32 [C, padded_k]        present if header.columns != 0    C = 1 or E: source column of each staged position, -1 = padding
//   panels     [E] x expert_bytes()
//
// Decoded values are exactly those of the PackedWeight: scales are kept in their own width, or re-encoded without loss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "billfish/weight.h"
#include "cpu/huge_buffer.h"
#include "cpu/panel_layout.h"

namespace billfish::cpu {

struct ImageHeader {
  uint64_t magic;
  uint32_t version;
  uint8_t codes, scales;
  uint16_t reserved;
  int64_t E, N, K, group;
  uint64_t factors, columns, columns_experts, panels;  ///< offsets in bytes, and C
  uint64_t bytes;                                      ///< of the whole image
  uint8_t padding[256 - 16 - 4 * 8 - 5 * 8];
};
static_assert(sizeof(ImageHeader) == 256);

class CpuWeight {
 public:
  CpuWeight() = default;

  /// Packs on `threads` threads. kOutOfMemory is the only failure of a valid PackedWeight.
  static Result<CpuWeight> Pack(const PackedWeight& weight, int threads);
  /// Uses an image written earlier and keeps its owner alive. kCorruptFile where the header or the size is wrong; panel bytes are not
  /// checked. Not portable between byte orders.
  static Result<CpuWeight> FromImage(Bytes image);
  std::span<const std::byte> image() const { return {base_, bytes_}; }

  const PanelLayout& layout() const { return layout_; }
  int64_t E() const { return layout_.E; }
  int64_t N() const { return layout_.N; }
  int64_t K() const { return layout_.K; }
  size_t bytes() const { return bytes_; }

  const std::byte* panel(int64_t e, int64_t p) const { return panels_ + size_t(e) * expert_bytes_ + size_t(p) * panel_bytes_; }
  /// Bytes one multiplication with expert e reads.
  size_t expert_bytes() const { return expert_bytes_; }
  /// [32] factors of panel p, or null when all are 1.
  const float* factors(int64_t e, int64_t p) const {
    return factors_ == nullptr ? nullptr : factors_ + (e * layout_.panels() + p) * kPanelRows;
  }
  /// [padded_k] source columns for expert e, or null for k = position.
  const int32_t* columns(int64_t e) const {
    return columns_ == nullptr ? nullptr : columns_ + (columns_experts_ == 1 ? 0 : e) * layout_.padded_k();
  }
  /// Whether experts order their columns differently (act-order), so that staged activations cannot be shared between them.
  bool columns_per_expert() const { return columns_experts_ > 1; }

 private:
  Status Adopt();

  std::shared_ptr<HugeBuffer> owned_;
  Bytes mapped_;
  const std::byte* base_ = nullptr;
  size_t bytes_ = 0;
  PanelLayout layout_;
  const float* factors_ = nullptr;
  const int32_t* columns_ = nullptr;
  const std::byte* panels_ = nullptr;
  int64_t columns_experts_ = 0;
  size_t expert_bytes_ = 0, panel_bytes_ = 0;
};

}  // namespace billfish::cpu
