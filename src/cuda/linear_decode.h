// y = x . W^T for few rows of x, by src/cuda/kernels/w4a16_linear_decode_{sm80,sm90a}.cu: W is read once, at the speed of the memory.
//
// Create compiles or loads every variant; Run picks one by M, or linear_vector.h for one row of a small weight of 16-bit codes, and
// launches it: no allocation, no compilation, no synchronisation, no workspace, so that it may be captured. Results are the same every
// time: each sum has one order, which depends on the shapes and the device only. Objects may be used by several threads and streams at
// once.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "billfish/status.h"
#include "billfish/tensor.h"
#include "cuda/device.h"
#include "cuda/jit.h"
#include "cuda/linear_decode_args.h"
#include "cuda/linear_tile.h"
#include "cuda/linear_vector.h"

namespace billfish::cuda {

/// What the kernel is compiled for: the macros of its file.
struct LinearDecodeVariant {
  int tokens = 8;         ///< rows of x at most: 8 or 16
  int step_units = 1;     ///< units of K in a step
  int row_blocks = 2;     ///< 16-row blocks of a block of rows
  int warps = 16;         ///< of a CTA
  int blocks = 1;         ///< CTAs that an SM has room for
  int stages = 3;         ///< steps in the ring of a warp
  bool stream_x = false;  ///< x is read from global memory again and again and does not stay in shared memory
  bool wgmma = false;     ///< four warps share a block of rows, a panel
};

/// How a call is spread over the device.
struct LinearDecodePlan {
  size_t variant = 0;
  int splits_log2 = 0;  ///< CTAs of a cluster = parts of K
  int clusters = 0;
};

class LinearDecode {
 public:
  /// activation: kBF16 or kF16. Errors: kUnsupported (CheckActivation), kInvalidArgument (a form with E > 1 or another row order than
  /// kPlain), those of LoadKernel.
  static Result<LinearDecode> Create(const GpuDevice& device, const TileView& weight, DType activation);

  /// Most rows of x that are multiplied in one pass over W.
  int64_t RowsOfPass() const { return loaded_.back().variant.tokens; }

  /// y[M,N] = row_scale * (x[M,K] . W^T) + bias, in passes of RowsOfPass() rows. x: M rows, x_stride elements apart; any alignment of 2
  /// bytes, 16 are faster. y must not overlap x. kUnsupported: a y dtype other than F32, BF16, F16.
  Status Run(const void* x, int64_t x_stride, int64_t M, const TileOutput& y, CUstream stream) const;

 private:
  struct Loaded {
    LinearDecodeVariant variant;
    LoadedKernel kernel;
    std::array<int, 4> clusters{};  ///< of 1, 2, 4, 8 CTAs that run at the same time; 0: they cannot run
  };
  LinearDecodePlan PlanFor(int64_t M, bool x_aligned) const;

  const GpuDevice* device_ = nullptr;
  TileView weight_;
  std::vector<Loaded> loaded_;  ///< by rising tokens
  std::optional<LinearVector> vector_;
};

/// The kernels of a layout on a device of this architecture, by rising tokens.
std::vector<LinearDecodeVariant> LinearDecodeVariants(const TileLayout& layout, Arch arch);
KernelSpec LinearDecodeSpec(const TileLayout& layout, const LinearDecodeVariant& variant, bool half, Arch arch);

/// What `billfish kernels` lists.
void AppendLinearDecodeSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
