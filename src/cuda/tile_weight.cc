#include "cuda/tile_weight.h"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "billfish/context.h"
#include "core/parallel.h"
#include "core/status_macros.h"
#include "cuda/driver.h"
#include "cuda/driver_api.h"
#include "cuda/tile_pack.h"

namespace billfish::cuda {
namespace {

constexpr size_t kSlotBytes = size_t{16} << 20;
constexpr size_t kAlignment = 256;

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

CUdeviceptr Address(const void* pointer) { return static_cast<CUdeviceptr>(reinterpret_cast<uintptr_t>(pointer)); }

// Two slots of page-locked memory, each filled by the CPU while the other is copied.
class Uploader {
 public:
  Uploader() = default;
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;
  ~Uploader() {
    if (api_ == nullptr) return;
    if (stream_ != nullptr) api_->StreamSynchronize(stream_), api_->StreamDestroy(stream_);
    for (Slot& slot : slots_) {
      if (slot.copied != nullptr) api_->EventDestroy(slot.copied);
      if (slot.bytes != nullptr) api_->MemFreeHost(slot.bytes);
    }
  }

  Status Open(size_t slot_bytes) {
    BILLFISH_ASSIGN_OR_RETURN(api_, Driver());
    BILLFISH_RETURN_IF_ERROR(Check(api_->StreamCreate(&stream_, kStreamNonBlocking), "creating a stream for a weight"));
    for (Slot& slot : slots_) {
      BILLFISH_RETURN_IF_ERROR(Check(api_->EventCreate(&slot.copied, kEventDisableTiming), "creating an event for a weight"));
      BILLFISH_RETURN_IF_ERROR(Check(api_->MemAllocHost(&slot.bytes, slot_bytes), "allocating page-locked memory for a weight"));
    }
    return OkStatus();
  }

  // The slot to fill next, free again.
  Result<std::byte*> NextSlot() {
    current_ = 1 - current_;
    Slot& slot = slots_[current_];
    if (slot.used) BILLFISH_RETURN_IF_ERROR(Check(api_->EventSynchronize(slot.copied), "waiting for the copy of a weight"));
    return static_cast<std::byte*>(slot.bytes);
  }

  // Sends the slot last handed out.
  Status Send(std::byte* to, size_t bytes) {
    Slot& slot = slots_[current_];
    slot.used = true;
    BILLFISH_RETURN_IF_ERROR(Check(api_->MemcpyHtoDAsync(Address(to), slot.bytes, bytes, stream_), "copying a weight to the device"));
    return Check(api_->EventRecord(slot.copied, stream_), "recording the copy of a weight");
  }

  // For small arrays: done when it returns.
  Status SendNow(const std::byte* to, const void* from, size_t bytes) {
    BILLFISH_RETURN_IF_ERROR(Check(api_->MemcpyHtoDAsync(Address(to), from, bytes, stream_), "copying a weight to the device"));
    return Finish();
  }

  Status Finish() { return Check(api_->StreamSynchronize(stream_), "waiting for a weight"); }

 private:
  struct Slot {
    void* bytes = nullptr;
    CUevent copied = nullptr;
    bool used = false;
  };
  const DriverApi* api_ = nullptr;
  CUstream stream_ = nullptr;
  std::array<Slot, 2> slots_;
  size_t current_ = 0;
};

}  // namespace

Result<TileWeight> TileWeight::Upload(const PackedWeight& weight, const GpuDevice& device, RowOrder order, int threads) {
  if (threads == 0) threads = DefaultThreads();
  TileWeight out;
  BILLFISH_ASSIGN_OR_RETURN(out.form_, FormOf(weight, order));
  const TileForm& form = out.form_;
  const size_t tile_bytes = static_cast<size_t>(form.E) * form.expert_bytes();
  const size_t rows = static_cast<size_t>(form.E * form.packed_rows());
  const std::vector<int32_t>& perm = weight.parts().perm;
  size_t total = tile_bytes;
  if (form.has_row_scale) {
    out.row_scale_offset_ = Aligned(total);
    total = out.row_scale_offset_ + rows * sizeof(float);
  }
  if (!perm.empty()) {
    out.perm_offset_ = Aligned(total);
    total = out.perm_offset_ + perm.size() * sizeof(int32_t);
  }
  BILLFISH_ASSIGN_OR_RETURN(out.memory_, DeviceBuffer::Allocate({Device::Kind::kCuda, device.info().index}, total));

  // Panels of all experts in one row: a slice is as many as fill a slot.
  const size_t panel_bytes = form.panel_bytes();
  const int64_t panels = form.E * form.panels;
  const int64_t slice = std::clamp<int64_t>(static_cast<int64_t>(kSlotBytes / panel_bytes), 1, panels);
  BILLFISH_RETURN_IF_ERROR(device.MakeCurrent());
  Uploader uploader;
  BILLFISH_RETURN_IF_ERROR(uploader.Open(static_cast<size_t>(slice) * panel_bytes));
  std::vector<float> row_scale(form.has_row_scale ? rows : 0);
  for (int64_t begin = 0; begin < panels; begin += slice) {
    const int64_t count = std::min(slice, panels - begin);
    BILLFISH_ASSIGN_OR_RETURN(std::byte* const slot, uploader.NextSlot());
    ParallelFor(threads, count, 1, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t panel = (begin + i) % form.panels;
        PackPanels(weight, form, (begin + i) / form.panels, panel, panel + 1, {slot + static_cast<size_t>(i) * panel_bytes, panel_bytes},
                   form.has_row_scale ? std::span(row_scale).subspan(static_cast<size_t>((begin + i) * kPanelRows), kPanelRows)
                                      : std::span<float>());
      }
    });
    BILLFISH_RETURN_IF_ERROR(
        uploader.Send(out.memory_.data() + static_cast<size_t>(begin) * panel_bytes, static_cast<size_t>(count) * panel_bytes));
  }
  if (form.has_row_scale) {
    BILLFISH_RETURN_IF_ERROR(uploader.SendNow(out.At(out.row_scale_offset_), row_scale.data(), rows * sizeof(float)));
  }
  if (!perm.empty()) {
    BILLFISH_RETURN_IF_ERROR(uploader.SendNow(out.At(out.perm_offset_), perm.data(), perm.size() * sizeof(int32_t)));
  }
  BILLFISH_RETURN_IF_ERROR(uploader.Finish());
  return out;
}

}  // namespace billfish::cuda
