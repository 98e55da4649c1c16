// The definition of MoeLayer::Forward and of a shared expert, in fp64.
#pragma once

#include <cstdint>
#include <span>

#include "billfish/moe.h"
#include "reference/linear.h"

namespace billfish::reference {

struct MoeWeights {
  const PackedWeight* gate_up;          ///< [E,2I,H], or [E,I,H] for an activation without gate
  const PackedWeight* down;             ///< [E,H,I]
  std::span<const float> gate_up_bias;  ///< empty or [E,2I]
  std::span<const float> down_bias;     ///< empty or [E,H]
  GateUpOrder order = GateUpOrder::kConcatenated;
  Activation activation;
};

/// h[r,i] = act(gate, up) of rows [gate | up] in the given order.
Matrix ActivateRows(const Matrix& gate_up, const Activation& activation, GateUpOrder order);

/// y[t] = sum_j weights[t,j] (W_down[e] act(W_gate_up[e] x[t] + b) + b_down[e]), e = ids[t,j]; -1 adds nothing. ids [T,top_k].
Matrix Moe(const MoeWeights& moe, const Matrix& x, std::span<const int32_t> ids, std::span<const double> weights);

/// Adds a shared expert to a routed result: y + W_down act(W_gate_up x). Both weights have E = 1.
Matrix AddSharedExpert(const Matrix& y, const MoeWeights& shared, const Matrix& x);

}  // namespace billfish::reference
