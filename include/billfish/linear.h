// Linear and GroupedLinear: 4-bit (or any other scheme) weights times 16- or 32-bit activations.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "billfish/backend.h"
#include "billfish/context.h"
#include "billfish/panel_store.h"
#include "billfish/tensor.h"
#include "billfish/weight.h"

namespace billfish {

struct LinearOptions {
  DType activation = DType::kBF16;  ///< dtype of x: kBF16 or kF32 on a CPU, kBF16 or kF16 on a GPU
  Mode mode = Mode::kExact;
  Device device;         ///< where the weight lies and Forward runs
  std::string kernel;    ///< a kernel name to insist on, or a tier to stay within; empty = the first that supports the problem
  ConstTensorView bias;  ///< optional: [N] (Linear) or [E,N] (GroupedLinear); f32, f16 or bf16; copied
  PanelEntry panels;     ///< optional: where the packed weight is kept between runs; ignored on a GPU
};

/// What a layer holds of one matrix or stack of matrices.
struct MatrixInfo {
  std::string_view kernel;
  QuantScheme scheme;
  int64_t E = 0, N = 0, K = 0;
  size_t bytes = 0;         ///< packed, in memory
  size_t weight_bytes = 0;  ///< as stored, without padding: what one use of every expert must read at least
};

/// y[M,N] = x[M,K] . W[N,K]^T + bias[N]
class Linear {
 public:
  Linear();
  ~Linear();
  Linear(Linear&&) noexcept;
  Linear& operator=(Linear&&) noexcept;

  /// Picks the kernel and packs the weight for it once; `weight` may be dropped afterwards.
  /// Errors: kUnsupported with every kernel's refusal, one a line; kShapeMismatch (bias); kOutOfMemory.
  /// Keeps the packed weight in options.panels where that is given.
  static Result<Linear> Create(const PackedWeight& weight, const LinearOptions& options);
  /// From what an earlier Create kept in options.panels, without the weight. kNotFound if there is nothing that can be used; then Create
  /// it. Otherwise fails as Create does. The results of both are equal, bit for bit.
  static Result<Linear> Map(const LinearOptions& options);

  /// x: [M,K] of options.activation, rows may be strided; y: [M,N] f32, or bf16 (on a GPU options.activation), rows may be strided.
  /// No aliasing. M >= 0. On a GPU x, y and the workspace are its memory; the call is ordered on ctx.stream and returns at once.
  /// Allocates nothing; the workspace must hold WorkspaceBytes(M). Deterministic, independent of ctx.threads.
  /// Errors: kShapeMismatch, kInvalidArgument (dtype, stride), kOutOfMemory (workspace too small; says how many bytes).
  Status Forward(ConstTensorView x, TensorView y, ExecContext& ctx) const;

  /// Room for every processor, at least 8 threads; a call with more threads than its workspace has room for uses fewer.
  size_t WorkspaceBytes(int64_t M) const;
  int64_t N() const;
  int64_t K() const;
  const QuantScheme& scheme() const;
  std::string_view kernel() const;  ///< its name
  size_t bytes() const;             ///< packed weight in memory
  /// Bytes one forward must read at least: the stored weight without padding. For roofline figures.
  size_t weight_bytes() const;

 private:
  friend class GroupedLinear;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Rows of x grouped by expert: for expert e and row r in [offsets[e],
/// offsets[e+1]):
///   y[r,:] = W[e] . x[gather ? gather[r] : r, :] + bias[e]
class GroupedLinear {
 public:
  GroupedLinear();
  ~GroupedLinear();
  GroupedLinear(GroupedLinear&&) noexcept;
  GroupedLinear& operator=(GroupedLinear&&) noexcept;

  static Result<GroupedLinear> Create(const PackedWeight& weight, const LinearOptions& options);
  /// As Linear::Map.
  static Result<GroupedLinear> Map(const LinearOptions& options);

  /// x: [T,K]; offsets: E+1 ascending, offsets[0] = 0, offsets[E] = rows of y; gather: empty or one index 0..T-1 per row of y.
  /// An expert without rows is never read. Otherwise as Linear::Forward, with WorkspaceBytes(rows, T).
  /// offsets and gather lie on the host: on a GPU the call sends them and waits for that, so it cannot be captured in a graph. MoeLayer,
  /// whose routing stays on the device, can.
  Status Forward(ConstTensorView x, std::span<const int64_t> offsets, std::span<const int32_t> gather, TensorView y,
                 ExecContext& ctx) const;

  size_t WorkspaceBytes(int64_t rows, int64_t T) const;
  int64_t E() const;
  int64_t N() const;
  int64_t K() const;
  const QuantScheme& scheme() const;
  std::string_view kernel() const;
  size_t bytes() const;
  size_t weight_bytes() const;

 private:
  std::unique_ptr<Linear::Impl> impl_;
};

}  // namespace billfish
