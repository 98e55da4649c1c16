// HeldMoe: the expert block of one token in one launch, by src/cuda/kernels/w4a16_held_moe_sm80.cu, where the weights that the token needs
// fit in the shared memory of the device.
//
// Create compiles or loads the kernel; Run only launches: no allocation, no compilation, no synchronisation. Results depend on the shapes
// and the routing alone. Objects may be used by several threads and streams at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "billfish/moe.h"
#include "billfish/status.h"
#include "billfish/tensor.h"
#include "cuda/device.h"
#include "cuda/held_moe_args.h"
#include "cuda/jit.h"
#include "cuda/linear_tile.h"

namespace billfish::cuda {

struct HeldMoeCall {
  const void* x = nullptr;         ///< [H] 16-bit, of the type given to Create
  const int32_t* ids = nullptr;    ///< [top_k]; those without an expert here add nothing
  const float* weights = nullptr;  ///< [top_k]
  const void* addend = nullptr;    ///< like y, or null; may be y
  void* y = nullptr;               ///< [H]
  int64_t top_k = 0, first_expert = 0;
  OutType y_type = OutType::kF32;
};

/// The same from the residual stream on: x is its norm, ids and weights come from the router's logits.
struct HeldNormedCall {
  NormRowsArgs norm;                  ///< of one row; y is not written
  const uint16_t* router = nullptr;   ///< [route.E][H] bf16
  const float* logit_bias = nullptr;  ///< [route.E] or null
  RouteArgs route;                    ///< the rule; what belongs to a call is not read
  void* y = nullptr;                  ///< [H]
  OutType y_type = OutType::kF32;
  int64_t first_expert = 0;
};

class HeldMoe {
 public:
  /// Nothing where not even two experts fit or the matrices have different layouts. Errors: those of LoadKernel and Allocate.
  static Result<std::optional<HeldMoe>> Create(const GpuDevice& device, const TileView& gate_up, const TileView& down, DType dtype,
                                               const Activation& activation);

  /// Whether the weights of so many experts fit, x is aligned, and y does not overlap x: a CTA that starts late still reads x after others
  /// have stored y.
  bool Takes(const HeldMoeCall& call) const;
  /// exchange: HeldExchangeOf the call's workspace. Precondition: Takes(call).
  Status Run(const HeldMoeCall& call, HeldExchange* exchange, CUstream stream) const;

  /// The same for a call from the residual stream on: bf16 activations and a softmax over the chosen logits. y overlaps none of norm.x,
  /// norm.delta and norm.sum.
  bool Takes(const HeldNormedCall& call) const;
  Status Run(const HeldNormedCall& call, HeldExchange* exchange, CUstream stream) const;

 private:
  bool Fits(int64_t top_k) const;
  int Values() const;  ///< BF_VALUES of normed_
  int64_t YBytes(OutType type) const;
  HeldMoeArgs ArgsOf(int64_t top_k) const;
  Status Start(const LoadedKernel& kernel, const HeldMoeArgs& shape, void* args, CUstream stream) const;

  const GpuDevice* device_ = nullptr;
  LoadedKernel kernel_;
  std::optional<LoadedKernel> normed_;
  TileLayout layout_;
  int features_ = 0;  ///< of h in a block of gate|up
  HeldMoeArgs args_;  ///< without what belongs to a call
};

/// That a process can use with this kernel.
inline constexpr size_t kMostHeldWorkspaces = 128;

/// Where the CTAs of launches with this workspace meet, which keeps what they left there: the workspace itself may hold anything. Launches
/// with one workspace are never under way together. Null if the process has used kMostHeldWorkspaces others. The memory is there once
/// HeldMoe::Create has given a HeldMoe for the device.
HeldExchange* HeldExchangeOf(const GpuDevice& device, const void* workspace);

/// What `billfish kernels` lists.
void AppendHeldMoeSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
