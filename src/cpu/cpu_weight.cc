#include "cpu/cpu_weight.h"

#include <cstring>
#include <string>

#include "core/parallel.h"
#include "core/status_macros.h"
#include "cpu/pack_panel.h"

namespace billfish::cpu {
namespace {

constexpr uint64_t kMagic = 0x31444E4C50484642;  // "BFHPLND1", little-endian
constexpr uint32_t kVersion = 1;

Status Corrupt(const std::string& what) { return {ErrorCode::kCorruptFile, "packed CPU weight: " + what}; }

void FillColumns(const PanelLayout& layout, const int32_t* perm, int32_t* columns) {
  for (int c = 0; c < layout.chunks; ++c) {
    const int64_t begin = layout.chunk_begin(c), length = layout.chunk_length(c);
    for (int i = 0; i < layout.chunk_k; ++i) {
      const int64_t k = begin + i;
      columns[int64_t{c} * layout.chunk_k + i] = i >= length ? -1 : perm == nullptr ? int32_t(k) : perm[k];
    }
  }
}

}  // namespace

Result<CpuWeight> CpuWeight::Pack(const PackedWeight& weight, int threads) {
  const PanelPacker packer(weight);
  const PanelLayout& layout = packer.layout();
  const bool perm = !weight.parts().perm.empty();
  const int64_t columns_experts = perm ? layout.E : layout.contiguous() ? 0 : 1;

  ImageHeader header{};
  header.magic = kMagic;
  header.version = kVersion;
  header.codes = uint8_t(layout.codes);
  header.scales = uint8_t(layout.scales);
  header.E = layout.E;
  header.N = layout.N;
  header.K = layout.K;
  header.group = packer.group();
  uint64_t end = sizeof(ImageHeader);
  if (packer.has_factors()) {
    header.factors = end;
    end = PanelLayout::Padded(end + uint64_t(layout.E * layout.panels()) * kPanelRows * sizeof(float));
  }
  if (columns_experts > 0) {
    header.columns = end;
    header.columns_experts = uint64_t(columns_experts);
    end = PanelLayout::Padded(end + uint64_t(columns_experts * layout.padded_k()) * sizeof(int32_t));
  }
  header.panels = end;
  header.bytes = end + uint64_t(layout.E) * layout.expert_bytes();

  CpuWeight packed;
  BILLFISH_ASSIGN_OR_RETURN(HugeBuffer buffer, HugeBuffer::Allocate(header.bytes));
  std::byte* base = buffer.data();
  std::memcpy(base, &header, sizeof header);
  for (int64_t e = 0; e < columns_experts; ++e) {
    const int32_t* order = perm ? weight.parts().perm.data() + e * layout.K : nullptr;
    FillColumns(layout, order, reinterpret_cast<int32_t*>(base + header.columns) + e * layout.padded_k());
  }
  const int64_t panels = layout.panels();
  ParallelFor(threads, layout.E * panels, 1, [&](int64_t begin, int64_t stop) {
    for (int64_t i = begin; i < stop; ++i) {
      float* factors = header.factors == 0 ? nullptr : reinterpret_cast<float*>(base + header.factors) + i * kPanelRows;
      packer.PackPanel(i / panels, i % panels, base + header.panels + size_t(i) * layout.panel_bytes(), factors);
    }
  });
  packed.owned_ = std::make_shared<HugeBuffer>(std::move(buffer));
  packed.base_ = base;
  packed.bytes_ = header.bytes;
  BILLFISH_RETURN_IF_ERROR(packed.Adopt());
  return packed;
}

Result<CpuWeight> CpuWeight::FromImage(Bytes image) {
  CpuWeight weight;
  weight.mapped_ = std::move(image);
  weight.base_ = weight.mapped_.data();
  weight.bytes_ = weight.mapped_.size();
  BILLFISH_RETURN_IF_ERROR(weight.Adopt());
  return weight;
}

Status CpuWeight::Adopt() {
  if (bytes_ < sizeof(ImageHeader)) return Corrupt("the file has " + std::to_string(bytes_) + " bytes, less than its header");
  if (reinterpret_cast<uintptr_t>(base_) % kLine != 0) return Corrupt("the image does not start at a multiple of 64 bytes");
  ImageHeader header;
  std::memcpy(&header, base_, sizeof header);
  if (header.magic != kMagic) return Corrupt("the first 8 bytes are not those of this format");
  if (header.version != kVersion) {
    return Corrupt("the file has version " + std::to_string(header.version) + ", this build reads " + std::to_string(kVersion) +
                   "; pack again");
  }
  constexpr int64_t kMost = int64_t{1} << 31;
  if (header.codes > uint8_t(Codes::kF32) || header.scales > uint8_t(Scales::kF32) || header.E < 1 || header.N < 1 || header.K < 1 ||
      header.E > kMost || header.N > kMost || header.K > kMost || header.group < 0 || header.group > kMost ||
      double(header.E) * double(header.N + kPanelRows) * double(header.K + kSlabK) > 0x1p50) {
    return Corrupt("the header names no known form or an impossible shape");
  }
  layout_ = MakePanelLayout(Codes(header.codes), Scales(header.scales), header.E, header.N, header.K, header.group);
  const auto inside = [&](uint64_t offset, uint64_t count, uint64_t size) {
    return offset % 4 == 0 && offset >= sizeof(ImageHeader) && offset <= bytes_ && count <= (bytes_ - offset) / size;
  };
  const uint64_t rows = uint64_t(layout_.E * layout_.panels()) * kPanelRows;
  const bool good =
      header.bytes == bytes_ && header.panels % kLine == 0 && inside(header.panels, uint64_t(layout_.E), layout_.expert_bytes()) &&
      (header.factors == 0 || inside(header.factors, rows, sizeof(float))) &&
      (header.columns == 0 || ((header.columns_experts == 1 || header.columns_experts == uint64_t(header.E)) &&
                               inside(header.columns, header.columns_experts * uint64_t(layout_.padded_k()), sizeof(int32_t))));
  if (!good) return Corrupt("the parts named by the header do not fit into the " + std::to_string(bytes_) + " bytes that are there");
  if (header.factors != 0) factors_ = reinterpret_cast<const float*>(base_ + header.factors);
  if (header.columns != 0) columns_ = reinterpret_cast<const int32_t*>(base_ + header.columns);
  columns_experts_ = header.columns == 0 ? 0 : int64_t(header.columns_experts);
  for (int64_t i = 0; i < columns_experts_ * layout_.padded_k(); ++i) {
    if (columns_[i] < -1 || columns_[i] >= layout_.K) return Corrupt("column " + std::to_string(i) + " lies outside the weight");
  }
  panels_ = base_ + header.panels;
  expert_bytes_ = layout_.expert_bytes();
  panel_bytes_ = layout_.panel_bytes();
  return OkStatus();
}

}  // namespace billfish::cpu
