#include "cuda/slot_sort.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/rounding.h"
#include "core/status_macros.h"

namespace billfish::cuda {
namespace {

// From here on three launches of many blocks are faster than one of one block.
constexpr int64_t kManySlots = 2048;
constexpr uint32_t kChunkWarps = kSortChunk / 32;

KernelSpec ChunkSpec() {
  KernelSpec spec;
  spec.file = "moe_sort_chunks.cu";
  spec.function = "moe_sort_chunks";
  spec.shared_bytes = static_cast<uint32_t>(kChunkWarps * SlotSort::kMostExperts * 2);
  return spec;
}

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
  BILLFISH_ASSIGN_OR_RETURN(sort.chunks_, LoadKernel(ChunkSpec(), device));
  return sort;
}

int64_t SlotSort::ScratchCounts(int64_t slots, int64_t E) { return slots < kManySlots ? 0 : DivideUp(slots, kSortChunk) * E; }

Status SlotSort::Run(const SortArgs& args, CUstream stream) const {
  if (args.slots >= kManySlots) return RunChunks(args, stream);
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

Status SlotSort::RunChunks(const SortArgs& args, CUstream stream) const {
  const auto chunks = static_cast<uint32_t>(DivideUp(args.slots, kSortChunk));
  SortArgs copy = args;
  std::array<void*, 1> parameters = {&copy};
  LaunchShape shape;
  shape.threads = kSortChunk;
  shape.dependent = device_->arch().major >= 9;
  shape.grid_x = chunks;
  shape.shared_bytes = static_cast<uint32_t>(kChunkWarps * static_cast<uint32_t>(args.E) * 2);
  copy.phase = 0;
  BILLFISH_RETURN_IF_ERROR(Launch(chunks_, shape, stream, parameters));
  shape.grid_x = 1;
  shape.shared_bytes = static_cast<uint32_t>(3 * (args.E + 1) * 4);
  copy.phase = 1;
  BILLFISH_RETURN_IF_ERROR(Launch(chunks_, shape, stream, parameters));
  shape.grid_x = chunks;
  shape.shared_bytes = 0;
  copy.phase = 2;
  return Launch(chunks_, shape, stream, parameters);
}

void AppendSlotSortSpecs(Arch, std::vector<KernelSpec>& specs) {
  specs.push_back(SortSpec());
  specs.push_back(ChunkSpec());
}

}  // namespace billfish::cuda
