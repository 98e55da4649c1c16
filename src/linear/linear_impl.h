// What Linear and GroupedLinear share: a kernel with its weight, the bias, and the checks of a forward call.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "backend/kernel.h"
#include "billfish/linear.h"

namespace billfish {

struct Linear::Impl {
  std::unique_ptr<backend::Kernel> kernel;
  DType activation = DType::kBF16;
  Device device;
  int64_t E = 0, N = 0, K = 0;
  size_t weight_bytes = 0;
  QuantScheme scheme;

  /// All but the kernel.
  static std::unique_ptr<Impl> For(const Problem& problem, size_t weight_bytes);
  static Result<std::unique_ptr<Impl>> Create(Op op, const PackedWeight& weight, const LinearOptions& options);
  static Result<std::unique_ptr<Impl>> Map(Op op, const LinearOptions& options);

  /// Bytes for `rows` rows of y: the kernel's scratch and, on a CPU, the offsets in 32 bits.
  size_t WorkspaceBytes(int64_t rows) const;

  /// Everything about x and y except their number of rows.
  Status CheckOperands(std::string_view layer, const ConstTensorView& x, const TensorView& y) const;

  /// Arguments are checked but for the workspace. Uses as many of ctx.threads as the workspace has room for, at least one.
  Status Run(std::string_view layer, const ConstTensorView& x, std::span<const int64_t> offsets, std::span<const int32_t> gather,
             const TensorView& y, ExecContext& ctx) const;

 private:
  Status WorkspaceTooSmall(std::string_view layer, int64_t rows, size_t bytes) const;
};

}  // namespace billfish
