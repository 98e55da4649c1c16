// Staging: rows of activations -> the form panel kernels read (panel_job.h): gathered, in chunk order, padded with zeros.
#pragma once

#include "cpu/panel_job.h"

namespace billfish::cpu {

/// fp32 or bf16 rows as fp32. Exact.
void StageF32(const StageJob& job);
/// fp32 or bf16 rows as bf16; fp32 rounds to nearest even.
void StageBF16(const StageJob& job);

}  // namespace billfish::cpu
