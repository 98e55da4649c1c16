// The arithmetic of a MoE block between its matrices, compiled once per instruction set: activation of one row, weighted sum of slots.
#pragma once

#include <cstdint>

#include "billfish/moe.h"
#include "cpu/isa.h"

namespace billfish::moe {

/// h[i] = act(gate[i], up[i]) for i in [0, n); h is bf16 (rounded to nearest even) or fp32. `up` is not read without a gate.
struct ActivateJob {
  const float* gate;
  const float* up;
  int64_t n;
  void* h;
  bool bf16;
};

/// y[c] = sum over j in slot order of weights[j] * rows[position[j], c], c in [0, n); position -1 adds nothing. fp32 sums.
struct CombineJob {
  const float* rows;
  int64_t n;                 ///< columns, also the distance between rows
  const int32_t* positions;  ///< [top_k]
  const float* weights;      ///< [top_k]
  int64_t top_k;
  void* y;
  bool bf16;
};

struct RowOps {
  void (*activate)(const Activation& activation, const ActivateJob& job);
  void (*combine)(const CombineJob& job);
};

/// The table for a tier that this processor has.
const RowOps& RowOpsFor(cpu::Tier tier);

}  // namespace billfish::moe
