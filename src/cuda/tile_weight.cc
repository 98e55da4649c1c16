#include "cuda/tile_weight.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "billfish/context.h"
#include "core/parallel.h"
#include "core/status_macros.h"
#include "cuda/pack_args.h"
#include "cuda/tile_scales.h"
#include "cuda/upload_slots.h"

namespace billfish::cuda {
namespace {

constexpr size_t kMostSlotBytes = size_t{8} << 20;
constexpr size_t kAlignment = 256;
constexpr int64_t kMostPanels = 65535;  // of a grid

constexpr size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

KernelSpec PackSpec() { return {.file = "pack_tiles.cu", .function = "pack_tiles"}; }

TileScale SourceScale(DType dtype) {
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

// Where the arrays of `rows` plain rows lie in a slot: codes, scales, zero points, bases.
struct SlotMap {
  size_t row_bytes = 0, scale_bytes = 0, zero_bytes = 0;  // of a row
  size_t scales = 0, zeros = 0, bases = 0, total = 0;     // offsets

  SlotMap(const PackedWeight& weight, const TileForm& form, int64_t rows) {
    const auto count = static_cast<size_t>(rows);
    row_bytes = static_cast<size_t>(weight.row_bytes());
    if (form.layout.scale != TileScale::kNone) {
      scale_bytes = static_cast<size_t>(weight.groups()) * static_cast<size_t>(DTypeBits(weight.scheme().scale)) / 8;
    }
    if (form.layout.zeros) zero_bytes = static_cast<size_t>(weight.groups());
    scales = Aligned(count * row_bytes);
    zeros = scales + Aligned(count * scale_bytes);
    bases = zeros + Aligned(count * zero_bytes);
    total = bases + Aligned(count * sizeof(int32_t));
  }

  size_t bytes_per_row() const { return row_bytes + scale_bytes + zero_bytes + sizeof(int32_t); }
};

// Copies packed row `row` of the stack of experts, as the plain form has it, to place `place` of a slot. Returns its row scale.
float CopyRow(const PackedWeight& weight, const TileForm& form, const SlotMap& map, int64_t row, int64_t place, std::byte* slot) {
  const int64_t e = row / form.packed_rows(), source = SourceRow(form, row % form.packed_rows());
  const RowScaleWriter writer(weight, form.layout, e, source);
  const int32_t base = source < 0 ? -1 : writer.base();
  const auto at = static_cast<size_t>(place);
  std::memcpy(slot + map.bases + at * sizeof base, &base, sizeof base);
  if (source < 0) return writer.row_scale();
  const auto first = static_cast<size_t>(e * form.N + source);
  std::memcpy(slot + at * map.row_bytes, weight.parts().codes.data() + first * map.row_bytes, map.row_bytes);
  const int64_t group_rows = weight.scheme().group_rows;
  const auto scale_row = static_cast<size_t>(e * weight.scale_rows() + (group_rows == 0 ? 0 : source / group_rows));
  if (map.scale_bytes > 0) {
    std::memcpy(slot + map.scales + at * map.scale_bytes, weight.parts().scales.data() + scale_row * map.scale_bytes, map.scale_bytes);
  }
  if (map.zero_bytes > 0) {
    std::memcpy(slot + map.zeros + at * map.zero_bytes, weight.parts().zeros.data() + scale_row * map.zero_bytes, map.zero_bytes);
  }
  return writer.row_scale();
}

Status LaunchPack(const LoadedKernel& kernel, const PackedWeight& weight, const TileForm& form, const SlotMap& map, const std::byte* slot,
                  std::byte* tiles, int64_t panels, CUstream stream) {
  const auto at = [&](size_t offset) { return reinterpret_cast<const uint8_t*>(slot + offset); };
  PackArgs args{};
  args.codes = at(0);
  args.scales = at(map.scales);
  args.zeros = at(map.zeros);
  args.bases = reinterpret_cast<const int32_t*>(slot + map.bases);
  args.tiles = reinterpret_cast<uint8_t*>(tiles);
  args.layout = form.layout;
  args.source_scale = SourceScale(weight.scheme().scale);
  args.group_columns = weight.groups() == 1 ? form.K : weight.scheme().group;
  args.row_bytes = weight.row_bytes();
  args.groups = weight.groups();
  args.K = form.K;
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(form.units);
  shape.grid_y = static_cast<uint32_t>(panels);
  shape.threads = kTileThreads;
  std::array<void*, 1> parameters = {&args};
  return Launch(kernel, shape, stream, parameters);
}

}  // namespace

Result<TileWeight> TileWeight::Upload(const PackedWeight& weight, const GpuDevice& device, RowOrder order, int threads) {
  if (threads == 0) threads = DefaultThreads();
  TileWeight out;
  BILLFISH_ASSIGN_OR_RETURN(out.form_, FormOf(weight, order));
  const TileForm& form = out.form_;
  const size_t tile_bytes = static_cast<size_t>(form.E) * form.expert_bytes();
  const int64_t rows = form.E * form.packed_rows();
  const std::vector<int32_t>& perm = weight.parts().perm;
  size_t total = tile_bytes;
  if (form.has_row_scale) {
    out.row_scale_offset_ = Aligned(total);
    total = out.row_scale_offset_ + static_cast<size_t>(rows) * sizeof(float);
  }
  if (!perm.empty()) {
    out.perm_offset_ = Aligned(total);
    total = out.perm_offset_ + perm.size() * sizeof(int32_t);
  }
  BILLFISH_ASSIGN_OR_RETURN(out.memory_, DeviceBuffer::Allocate({Device::Kind::kCuda, device.info().index}, total));
  BILLFISH_ASSIGN_OR_RETURN(const LoadedKernel kernel, LoadKernel(PackSpec(), device));

  // The panels of all experts in one row; a slice of them is what a slot holds.
  const int64_t panels = form.E * form.panels;
  const size_t slot_bytes = std::min(kMostSlotBytes, total / 32);
  const int64_t slice = std::clamp<int64_t>(static_cast<int64_t>(slot_bytes / (kPanelRows * SlotMap(weight, form, 1).bytes_per_row())), 1,
                                            std::min(panels, kMostPanels));
  const SlotMap map(weight, form, slice * kPanelRows);
  UploadSlots slots;
  BILLFISH_RETURN_IF_ERROR(slots.Open(device, map.total));
  std::vector<float> row_scale(static_cast<size_t>(rows));
  for (int64_t begin = 0; begin < panels; begin += slice) {
    const int64_t count = std::min(slice, panels - begin);
    BILLFISH_ASSIGN_OR_RETURN(std::byte* const host, slots.Next());
    ParallelFor(threads, count * kPanelRows, 16, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t row = begin * kPanelRows + i;
        row_scale[static_cast<size_t>(row)] = CopyRow(weight, form, map, row, i, host);
      }
    });
    BILLFISH_ASSIGN_OR_RETURN(const std::byte* const plain, slots.Send(map.total));
    BILLFISH_RETURN_IF_ERROR(LaunchPack(kernel, weight, form, map, plain,
                                        out.memory_.data() + static_cast<size_t>(begin) * form.panel_bytes(), count, slots.stream()));
    BILLFISH_RETURN_IF_ERROR(slots.Release());
  }
  if (form.has_row_scale) BILLFISH_RETURN_IF_ERROR(slots.SendNow(out.At(out.row_scale_offset_), std::as_bytes(std::span(row_scale))));
  if (!perm.empty()) BILLFISH_RETURN_IF_ERROR(slots.SendNow(out.At(out.perm_offset_), std::as_bytes(std::span(perm))));
  BILLFISH_RETURN_IF_ERROR(slots.Finish());
  return out;
}

void AppendPackSpecs(Arch, std::vector<KernelSpec>& specs) { specs.push_back(PackSpec()); }

}  // namespace billfish::cuda
