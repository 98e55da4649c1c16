// GroupedLinear: y[r, n] = sum_k W[e(r), n, k] * x[source(r), k] + bias[e(r), n] for rows r sorted by expert. A dense layer is E = 1.
//
// Deterministic: the result depends neither on the thread count nor on the schedule. Work is cut over experts, rows and panels of 32
// outputs, never over k. No allocation, no lock; atomic counters hand out work items.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "billfish/status.h"
#include "billfish/tensor.h"
#include "cpu/cpu_weight.h"
#include "cpu/kernel_table.h"

namespace billfish::cpu {

struct GroupedRows {
  int64_t rows = 0;  ///< R, rows of y
  std::span<const int32_t>
      offsets;                      ///< [E + 1], rows of expert e are [offsets[e], offsets[e + 1]), offsets[E] = R; empty = all rows, E = 1
  const int32_t* source = nullptr;  ///< [R] row of x each row of y multiplies, not checked to lie inside x; null = r
};

class GroupedLinear {
 public:
  GroupedLinear() = default;
  /// Chooses the kernel once. The weight must outlive the object. kUnsupported names every kernel that refused.
  static Result<GroupedLinear> Create(const CpuWeight* weight, DType x, Precision precision, std::string_view forced = ForcedKernel());

  std::string kernel_name() const { return kernel_->Name(weight_->layout()); }
  /// Bytes Run needs for up to `rows` rows; no alignment is asked of the workspace.
  size_t workspace_bytes(int64_t rows, int threads) const;

  /// x         [*, K] of the dtype given to Create, inner stride 1, any row stride
  /// y         [R, N] f32 or bf16, inner stride 1; must not overlap x
  /// bias      [E, N] fp32 or null
  /// workspace at least workspace_bytes(R, threads)
  /// Errors: kInvalidArgument (dtypes, offsets), kShapeMismatch, kOutOfMemory (workspace too small). Blocking.
  Status Run(ConstTensorView x, const GroupedRows& groups, const float* bias, TensorView y, std::span<std::byte> workspace,
             int threads) const;

 private:
  struct Segment;
  struct Lane;
  const CpuWeight* weight_ = nullptr;
  const CpuKernel* kernel_ = nullptr;
  PanelFunction panel_ = nullptr;
  DType x_ = DType::kBF16;
};

}  // namespace billfish::cpu
