#include "cuda/slot_sort.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/status_macros.h"

namespace billfish::cuda {
namespace {

KernelSpec SortSpec() {
  KernelSpec spec;
  spec.file = "moe_sort.cu";
  spec.function = "moe_sort";
  spec.shared_bytes = 96 << 10;
  return spec;
}

}  // namespace

Result<SlotSort> SlotSort::Create(int64_t E, const GpuDevice& device) {
  if (E > kMostExperts) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("an expert block on the GPU has at most {} experts and this one has {}; use the CPU", kMostExperts, E));
  }
  SlotSort sort;
  sort.device_ = &device;
  while (SortSharedBytes(E, sort.most_warps_) > SortSpec().shared_bytes) sort.most_warps_ /= 2;
  BILLFISH_ASSIGN_OR_RETURN(sort.kernel_, LoadKernel(SortSpec(), device));
  return sort;
}

Status SlotSort::Run(const SortArgs& args, CUstream stream) const {
  const auto batches = static_cast<uint32_t>((args.slots + 31) / 32);
  const uint32_t warps = std::clamp(batches, std::min(8U, most_warps_), most_warps_);
  LaunchShape shape;
  shape.threads = warps * 32;
  shape.shared_bytes = static_cast<uint32_t>(SortSharedBytes(args.E, warps));
  shape.dependent = device_->arch().major >= 9;
  SortArgs copy = args;
  std::array<void*, 1> parameters = {&copy};
  return Launch(kernel_, shape, stream, parameters);
}

void AppendSlotSortSpecs(Arch, std::vector<KernelSpec>& specs) { specs.push_back(SortSpec()); }

}  // namespace billfish::cuda
