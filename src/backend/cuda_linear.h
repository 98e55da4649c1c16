// A linear on a GPU: the packed weight, its bias and every kernel that the table allows, chosen by the rows of a call.
#pragma once

#include <memory>
#include <vector>

#include "backend/cuda_table.h"
#include "backend/kernel.h"

namespace billfish::backend {

/// Packs the weight onto problem.device and loads the kernels of the supported rows.
Result<std::unique_ptr<Kernel>> MakeCudaLinear(const Problem& problem, const std::vector<CudaRow>& rows, const PackedWeight& weight,
                                               const std::vector<float>& bias);

}  // namespace billfish::backend
