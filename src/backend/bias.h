// The bias of a layer as its kernels take it.
#pragma once

#include <vector>

#include "billfish/backend.h"

namespace billfish::backend {

/// The bias of problem's weight as fp32: [N] for Op::kLinear, [E,N] for Op::kGroupedLinear, f32, f16 or bf16, on the host; empty for a view
/// without data. kShapeMismatch (shape, strides), kInvalidArgument (dtype).
Result<std::vector<float>> ReadBias(const ConstTensorView& bias, const Problem& problem);

}  // namespace billfish::backend
