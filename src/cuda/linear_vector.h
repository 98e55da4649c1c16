// y = x . W^T for one row of x and a small weight of 16-bit codes, by src/cuda/kernels/w16a16_linear_vector_sm80.cu: all of W is on its way
// to the SMs before the row is there.
//
// Run launches and nothing else: it may be captured. Results are the same every time. Objects may be used by several threads and streams.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "billfish/status.h"
#include "cuda/device.h"
#include "cuda/jit.h"
#include "cuda/linear_tile.h"

namespace billfish::cuda {

class LinearVector {
 public:
  /// Nothing for a weight of other codes, or of which the SMs do not hold all. `weight` is one matrix in plain order
  /// whose codes are of the type of x. The errors of LoadKernel.
  static Result<std::optional<LinearVector>> Create(const GpuDevice& device, const TileView& weight);

  /// Whether the row can be read 16 bytes at a time.
  bool Takes(const void* x) const { return weight_.form.K % 8 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0; }
  /// y[N] = x[K] . W^T + bias; y must not overlap x. kUnsupported: a y dtype other than F32, BF16, F16.
  Status Run(const void* x, const TileOutput& y, CUstream stream) const;

 private:
  TileView weight_;
  LoadedKernel kernel_;
  int32_t ctas_ = 0;
  uint32_t shared_bytes_ = 0;
};

/// What `billfish kernels` lists.
void AppendLinearVectorSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
