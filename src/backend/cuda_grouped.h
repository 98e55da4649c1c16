// A grouped linear on a GPU whose rows the caller has sorted on the host.
#pragma once

#include <memory>
#include <vector>

#include "backend/cuda_table.h"
#include "backend/kernel.h"

namespace billfish::backend {

/// Packs the stack onto problem.device and loads the kernels of the supported rows.
Result<std::unique_ptr<Kernel>> MakeCudaGrouped(const Problem& problem, const std::vector<CudaRow>& rows, const PackedWeight& weight,
                                                const std::vector<float>& bias);

}  // namespace billfish::backend
