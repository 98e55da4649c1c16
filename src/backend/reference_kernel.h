// The reference as a kernel: any scheme, any shape, fp64 sums, one weight row at a time. Slow; the yardstick of `verify`.
#pragma once

#include <memory>

#include "backend/kernel.h"

namespace billfish::backend {

/// Keeps the plain form of the weight (shares its bytes).
std::unique_ptr<Kernel> MakeReferenceKernel(std::string_view name, const PackedWeight& weight, std::vector<float> bias);

}  // namespace billfish::backend
