// TokenMoe: the expert block of one token in one launch, by src/cuda/kernels/w4a16_token_moe_sm80.cu.
//
// Create compiles or loads the kernel; Run only launches: no allocation, no compilation, no synchronisation. Results depend on the routing
// and the number of shares. Objects may be used by several threads and streams at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "billfish/moe.h"
#include "billfish/status.h"
#include "billfish/tensor.h"
#include "cuda/device.h"
#include "cuda/jit.h"
#include "cuda/linear_tile.h"
#include "cuda/token_moe_args.h"

namespace billfish::cuda {

struct TokenMoeCall {
  const void* x = nullptr;         ///< [K] 16-bit, of the type given to Create
  const int32_t* ids = nullptr;    ///< [top_k]; those without an expert here add nothing
  const float* weights = nullptr;  ///< [top_k]
  const void* addend = nullptr;    ///< like y, or null
  void* y = nullptr;               ///< [N of down]
  void* h = nullptr;               ///< [top_k][h_stride] scratch, 16 bytes aligned
  float* sums = nullptr;           ///< TokenMoe::SumsBytes(shares) of scratch
  int64_t h_stride = 0;
  int64_t top_k = 0, first_expert = 0;
  int64_t shares = 0;  ///< CTAs, at most kMostTokenShares; need not run at a time
  OutType y_type = OutType::kF32;
};

/// Of w4a16_token_moe_sm80.cu.
struct TokenVariant {
  int warps;   ///< of a CTA that multiply
  int stages;  ///< steps in a warp's ring
};

class TokenMoe {
 public:
  /// Nothing if the matrices have different layouts: the kernel has one for both. Errors: those of LoadKernel.
  static Result<std::optional<TokenMoe>> Create(const GpuDevice& device, const TileView& gate_up, const TileView& down, DType dtype,
                                                const Activation& activation);

  /// Whether x and the rows of h fit in shared memory.
  bool Takes(int64_t top_k) const;
  /// As many shares as the device has SMs.
  int64_t Shares() const;
  static int64_t SumsBytes(int64_t shares);
  /// progress: TokenProgressOf the call's workspace. Precondition: Takes.
  Status Run(const TokenMoeCall& call, TokenProgress* progress, CUstream stream) const;

 private:
  int64_t SharedBytes(int64_t top_k) const;

  const GpuDevice* device_ = nullptr;
  TileForm gate_up_, down_;
  TokenVariant variant_{};
  LoadedKernel kernel_;
  TokenMoeArgs args_;  ///< without what belongs to a call
};

/// That a process can use with this kernel.
inline constexpr size_t kMostTokenWorkspaces = 1024;

/// What the CTAs of a launch with this workspace count in, zeros: the workspace itself may hold anything. Launches with one workspace are
/// never under way together, and the last CTA of each leaves zeros behind. Null if the process has used kMostTokenWorkspaces others. The
/// memory is there once TokenMoe::Create has been called for the device.
TokenProgress* TokenProgressOf(const GpuDevice& device, const void* workspace);

TokenVariant TokenVariantOf(const TileLayout& layout, Arch arch);
KernelSpec TokenMoeSpec(const TileLayout& layout, Arch arch, const TokenVariant& variant, bool half, ActivationKind activation);

/// What `billfish kernels` lists.
void AppendTokenMoeSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
