// A kernel of the CPU table with the panels it multiplies.
#pragma once

#include <memory>

#include "backend/kernel.h"
#include "cpu/cpu_weight.h"
#include "cpu/grouped_linear.h"

namespace billfish::backend {

cpu::Precision PrecisionOf(Mode mode);

/// `name` is the kernel's own name for this weight, in static storage.
Result<std::unique_ptr<Kernel>> MakeCpuKernel(std::string_view name, cpu::CpuWeight weight, std::vector<float> bias, DType activation,
                                              Mode mode);

}  // namespace billfish::backend
