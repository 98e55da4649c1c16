// Kernels for any processor: the panel form read lane by lane.
#pragma once

#include "cpu/panel_job.h"

namespace billfish::cpu::scalar {

/// fp32 staged activations, every layout; never null.
PanelFunction LinearPanel(const PanelLayout& layout);

}  // namespace billfish::cpu::scalar
