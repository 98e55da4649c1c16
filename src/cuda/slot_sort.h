// SlotSort: the (token, expert) slots of a routing sorted by expert on the device: one launch of
// src/cuda/kernels/moe_sort.cu, or three of moe_sort_chunks.cu where slots are many.
#pragma once

#include <cstdint>
#include <vector>

#include "billfish/status.h"
#include "cuda/device.h"
#include "cuda/jit.h"
#include "cuda/moe_args.h"

namespace billfish::cuda {

class SlotSort {
 public:
  /// Experts whose counts fit in shared memory.
  static constexpr int64_t kMostExperts = 1536;

  /// kUnsupported (more than kMostExperts), those of LoadKernel.
  static Result<SlotSort> Create(int64_t E, const GpuDevice& device);

  /// Numbers that SortArgs::counts must hold for so many slots.
  static int64_t ScratchCounts(int64_t slots, int64_t E);

  /// Fills what SortArgs points to; args.E is the E of Create, args.slots at least 1, args.phase is set here. The order depends on the ids
  /// alone.
  Status Run(const SortArgs& args, CUstream stream) const;

 private:
  Status RunChunks(const SortArgs& args, CUstream stream) const;

  const GpuDevice* device_ = nullptr;
  uint32_t most_warps_ = 32;
  LoadedKernel kernel_, chunks_;
};

/// What `billfish kernels` lists.
void AppendSlotSortSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
