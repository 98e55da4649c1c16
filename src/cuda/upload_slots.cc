#include "cuda/upload_slots.h"

#include <cstdint>

#include "core/status_macros.h"
#include "cuda/driver.h"

namespace billfish::cuda {
namespace {

CUdeviceptr Address(const void* pointer) { return static_cast<CUdeviceptr>(reinterpret_cast<uintptr_t>(pointer)); }

}  // namespace

UploadSlots::~UploadSlots() {
  if (api_ == nullptr) return;
  if (stream_ != nullptr) {
    api_->StreamSynchronize(stream_);
    api_->StreamDestroy(stream_);
  }
  for (Slot& slot : slots_) {
    if (slot.released != nullptr) api_->EventDestroy(slot.released);
  }
}

Status UploadSlots::Open(const GpuDevice& device, size_t bytes) {
  BILLFISH_RETURN_IF_ERROR(device.MakeCurrent());
  BILLFISH_ASSIGN_OR_RETURN(api_, Driver());
  BILLFISH_RETURN_IF_ERROR(Check(api_->StreamCreate(&stream_, kStreamNonBlocking), "creating a stream for a weight"));
  for (Slot& slot : slots_) {
    BILLFISH_RETURN_IF_ERROR(Check(api_->EventCreate(&slot.released, kEventDisableTiming), "creating an event for a weight"));
    BILLFISH_ASSIGN_OR_RETURN(slot.host, PinnedBuffer::Allocate(device, bytes));
    BILLFISH_ASSIGN_OR_RETURN(slot.device, DeviceBuffer::Allocate({Device::Kind::kCuda, device.info().index}, bytes));
  }
  return OkStatus();
}

Result<std::byte*> UploadSlots::Next() {
  current_ = 1 - current_;
  Slot& slot = slots_[current_];
  if (slot.used) BILLFISH_RETURN_IF_ERROR(Check(api_->EventSynchronize(slot.released), "waiting for the upload of a weight"));
  slot.used = true;
  return slot.host.as<std::byte>();
}

Result<const std::byte*> UploadSlots::Send(size_t bytes) {
  const Slot& slot = slots_[current_];
  BILLFISH_RETURN_IF_ERROR(Check(api_->MemcpyHtoDAsync(Address(slot.device.data()), slot.host.as<std::byte>(), bytes, stream_),
                                 "copying a weight to the device"));
  return static_cast<const std::byte*>(slot.device.data());
}

Status UploadSlots::Release() { return Check(api_->EventRecord(slots_[current_].released, stream_), "recording the upload of a weight"); }

Status UploadSlots::SendNow(const std::byte* to, std::span<const std::byte> from) {
  BILLFISH_RETURN_IF_ERROR(Check(api_->MemcpyHtoDAsync(Address(to), from.data(), from.size(), stream_), "copying a weight to the device"));
  return Finish();
}

Status UploadSlots::Finish() { return Check(api_->StreamSynchronize(stream_), "waiting for the upload of a weight"); }

}  // namespace billfish::cuda
