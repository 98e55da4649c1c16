#include "cuda/tile_weight.h"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "billfish/context.h"
#include "core/parallel.h"
#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/plain_rows.h"
#include "cuda/upload_slots.h"

namespace billfish::cuda {
namespace {

constexpr size_t kMostSlotBytes = size_t{8} << 20;
constexpr size_t kAlignment = 256;
constexpr int64_t kMostPanels = 65535;  // of a grid

KernelSpec PackSpec() { return {.file = "pack_tiles.cu", .function = "pack_tiles"}; }

Status LaunchPack(const LoadedKernel& kernel, PackArgs args, const TileForm& form, int64_t panels, CUstream stream) {
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
  size_t total = tile_bytes + static_cast<size_t>((kMostStepUnits - 1) * form.layout.unit_bytes());
  if (form.has_row_scale) {
    out.row_scale_offset_ = RoundUp(total, kAlignment);
    total = out.row_scale_offset_ + static_cast<size_t>(rows) * sizeof(float);
  }
  if (!perm.empty()) {
    out.perm_offset_ = RoundUp(total, kAlignment);
    total = out.perm_offset_ + perm.size() * sizeof(int32_t);
  }
  BILLFISH_ASSIGN_OR_RETURN(out.memory_, DeviceBuffer::Allocate({Device::Kind::kCuda, device.info().index}, total));
  BILLFISH_ASSIGN_OR_RETURN(const LoadedKernel kernel, LoadKernel(PackSpec(), device));

  // The panels of all experts in one row; a slice of them is what a slot holds.
  const int64_t panels = form.E * form.panels;
  const size_t slot_bytes = std::min(kMostSlotBytes, total / 32);
  const int64_t slice = std::clamp<int64_t>(static_cast<int64_t>(slot_bytes / (kPanelRows * PlainRows::BytesPerRow(weight, form))), 1,
                                            std::min(panels, kMostPanels));
  const PlainRows plain(weight, form, slice * kPanelRows);
  UploadSlots slots;
  BILLFISH_RETURN_IF_ERROR(slots.Open(device, plain.bytes()));
  std::vector<float> row_scale(static_cast<size_t>(rows));
  for (int64_t begin = 0; begin < panels; begin += slice) {
    const int64_t count = std::min(slice, panels - begin);
    BILLFISH_ASSIGN_OR_RETURN(std::byte* const host, slots.Next());
    ParallelFor(threads, count * kPanelRows, 16, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t row = begin * kPanelRows + i;
        row_scale[static_cast<size_t>(row)] = plain.Copy(row, i, host);
      }
    });
    BILLFISH_ASSIGN_OR_RETURN(const std::byte* const sent, slots.Send(plain.bytes()));
    std::byte* const tiles = out.memory_.data() + static_cast<size_t>(begin) * form.panel_bytes();
    BILLFISH_RETURN_IF_ERROR(LaunchPack(kernel, plain.ArgsFor(sent, tiles), form, count, slots.stream()));
    BILLFISH_RETURN_IF_ERROR(slots.Release());
  }
  // A kernel that takes several units at a time may read some behind the last: any numbers will do, but numbers they must be.
  const std::vector<std::byte> behind(static_cast<size_t>((kMostStepUnits - 1) * form.layout.unit_bytes()));
  BILLFISH_RETURN_IF_ERROR(slots.SendNow(out.At(tile_bytes), behind));
  if (form.has_row_scale) BILLFISH_RETURN_IF_ERROR(slots.SendNow(out.At(out.row_scale_offset_), std::as_bytes(std::span(row_scale))));
  if (!perm.empty()) BILLFISH_RETURN_IF_ERROR(slots.SendNow(out.At(out.perm_offset_), std::as_bytes(std::span(perm))));
  BILLFISH_RETURN_IF_ERROR(slots.Finish());
  return out;
}

void AppendPackSpecs(Arch, std::vector<KernelSpec>& specs) { specs.push_back(PackSpec()); }

}  // namespace billfish::cuda
