// The kernels of AVX2, FMA and F16C. Call only where CpuFeatures says so.
#pragma once

#include "cpu/panel_job.h"

namespace billfish::cpu::avx2 {

/// fp32 staged activations, fp32 products and sums; every layout, never null.
PanelFunction LinearPanel(const PanelLayout& layout);

}  // namespace billfish::cpu::avx2
