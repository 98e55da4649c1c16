// Router: logits on the device to expert ids and weights on the device, by src/cuda/kernels/moe_route.cu.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "billfish/cuda.h"
#include "billfish/moe.h"
#include "billfish/status.h"
#include "cuda/device.h"
#include "cuda/jit.h"
#include "cuda/moe_args.h"

namespace billfish::cuda {

/// Owns copies of the rule's tables on the device. May be used by several threads and streams at once.
class Router {
 public:
  /// Precondition: rule.Validate() is ok. Errors: kUnsupported (more experts or groups than the kernel holds), those of LoadKernel.
  static Result<Router> Create(const RouterRule& rule, const GpuDevice& device);

  /// logits [T] rows of E floats, `stride` apart -> ids, weights [T][top_k]; all on the device. The definition is RouteTopK's. token_ids
  /// [T] is read only for hash routing; a token id outside the table gives ids of -1 and weights of 0.
  Status Run(const float* logits, int64_t stride, int64_t T, const int32_t* token_ids, int32_t* ids, float* weights, CUstream stream) const;

 private:
  const GpuDevice* device_ = nullptr;
  LoadedKernel kernel_;
  RouteArgs args_;  ///< without the pointers of a call
  DeviceBuffer correction_, hash_table_;
};

/// What `billfish kernels` lists.
void AppendRouteSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
