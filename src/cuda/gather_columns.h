// Activations in the column order of an act-order weight, by src/cuda/kernels/gather_columns.cu.
#pragma once

#include <cstdint>
#include <vector>

#include "billfish/status.h"
#include "cuda/device.h"
#include "cuda/jit.h"

namespace billfish::cuda {

class GatherColumns {
 public:
  static Result<GatherColumns> Create(const GpuDevice& device);

  /// y[m][j] = x[m * x_stride + perm[j]] for M rows of K bf16 or fp16 elements; all on the device, y apart from x and [M][K]. perm is a
  /// permutation of 0..K-1 that was complete before this call. Ordered on `stream`. kUnsupported: more rows than a grid has.
  Status Run(const void* x, int64_t x_stride, const int32_t* perm, void* y, int64_t M, int64_t K, CUstream stream) const;

 private:
  LoadedKernel kernel_;
};

/// What `billfish kernels` lists.
void AppendGatherColumnsSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
