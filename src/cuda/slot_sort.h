// SlotSort: the (token, expert) slots of a routing sorted by expert on the device, by src/cuda/kernels/moe_sort.cu.
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
  static constexpr int64_t kMostExperts = 4096;

  /// kUnsupported (more than kMostExperts), those of LoadKernel.
  static Result<SlotSort> Create(int64_t E, const GpuDevice& device);

  /// Fills what SortArgs points to; args.E is the E of Create, args.slots at least 1. The order depends on the ids alone.
  Status Run(const SortArgs& args, CUstream stream) const;

 private:
  const GpuDevice* device_ = nullptr;
  uint32_t most_warps_ = 32;
  LoadedKernel kernel_;
};

/// What `billfish kernels` lists.
void AppendSlotSortSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
