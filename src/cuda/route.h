// Router: logits on the device to expert ids and weights on the device, by src/cuda/kernels/moe_route.cu.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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

  /// The largest E and H of RunNormed.
  static constexpr int64_t kMostNormedExperts = 512, kMostNormedWidth = 16384;
  /// Whether RunNormed takes rows of H values: a GPU with clusters, H a multiple of 32 up to kMostNormedWidth.
  bool CanNorm(int64_t H) const { return norm_kernel_.has_value() && H % 32 == 0 && H <= kMostNormedWidth; }
  /// NormRouteArgs without the tables of the rule: args.route.token_ids, ids and weights and the rest are read. One cluster a row.
  /// Precondition: CanNorm(args.norm.H).
  Status RunNormed(const NormRouteArgs& args, CUstream stream) const;

  /// The rule, without the pointers of a call: for kernels that route by themselves.
  const RouteArgs& rule() const { return args_; }

  /// logits [T] rows of E floats, `stride` apart -> ids, weights [T][top_k]; all on the device. The definition is RouteTopK's. token_ids
  /// [T] is read only for hash routing; a token id outside the table gives ids of -1 and weights of 0.
  Status Run(const float* logits, int64_t stride, int64_t T, const int32_t* token_ids, int32_t* ids, float* weights, CUstream stream) const;

 private:
  const GpuDevice* device_ = nullptr;
  LoadedKernel kernel_;
  std::optional<LoadedKernel> norm_kernel_;
  RouteArgs args_;  ///< without the pointers of a call
  DeviceBuffer correction_, hash_table_;
};

/// What `billfish kernels` lists.
void AppendRouteSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
