// The kernels of AVX-512 F, BW, VL and DQ. Call only where CpuFeatures says so.
#pragma once

#include "cpu/panel_job.h"

namespace billfish::cpu::avx512 {

/// fp32 staged activations, fp32 products and sums; every layout, never null.
PanelFunction LinearPanel(const PanelLayout& layout);

}  // namespace billfish::cpu::avx512
