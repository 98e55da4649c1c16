// The kernels of AVX-512 with BF16, VNNI and VBMI. Call only where CpuFeatures says so.
#pragma once

#include "cpu/panel_job.h"

namespace billfish::cpu::avx512bf16 {

/// bf16 activations; null where no such kernel exists (fp16 and fp32 weights do not fit bf16).
PanelFunction LinearPanel(const PanelLayout& layout);

/// int8 activations, 4-bit weights; null unless chunks are 16 or a multiple of 32 k.
PanelFunction LinearPanelInt8(const PanelLayout& layout);
/// fp32 or bf16 rows -> int8, one scale per 32 staged k; bytes of each 8 k are reordered for LinearPanelInt8.
void StageInt8(const StageJob& job);

}  // namespace billfish::cpu::avx512bf16
