// h = act(gate, up) of an expert, in fp32. The formulas are those of billfish::Activation (include/billfish/moe.h).
//
// BF_ACTIVATION chooses one at compile time; limit, alpha and beta are kernel arguments. Exponentials that overflow give the limit of
// the formula: a large negative gate gives -0, never a NaN.
#pragma once

#include "cuda/activation_kind.h"

namespace billfish::cuda {

__device__ __forceinline__ float Sigmoid(float v) { return 1.0f / (1.0f + expf(-v)); }

/// fminf and fmaxf drop a NaN; a clamp must keep it.
__device__ __forceinline__ float ClampAbove(float v, float limit) { return v > limit ? limit : v; }
__device__ __forceinline__ float ClampBelow(float v, float limit) { return v < limit ? limit : v; }

/// Kinds without gate read `gate` alone.
template <ActivationKind kKind>
__device__ __forceinline__ float Activate(float gate, float up, const ActivationParameters& p) {
  if constexpr (kKind == ActivationKind::kSwiglu) {
    return gate * Sigmoid(gate) * up;
  } else if constexpr (kKind == ActivationKind::kSwigluClamped) {
    const float g = ClampAbove(gate, p.limit), u = ClampBelow(ClampAbove(up, p.limit), -p.limit);
    return g * Sigmoid(g) * u;
  } else if constexpr (kKind == ActivationKind::kSwigluOai) {
    const float g = ClampAbove(gate, p.limit), u = ClampBelow(ClampAbove(up, p.limit), -p.limit);
    return g * Sigmoid(p.alpha * g) * (u + p.beta);
  } else if constexpr (kKind == ActivationKind::kGegluTanh) {
    // 0.5 (1 + tanh(v)) = sigmoid(2 v)
    const float v = 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
    return gate * Sigmoid(2.0f * v) * up;
  } else if constexpr (kKind == ActivationKind::kSilu) {
    return gate * Sigmoid(gate);
  } else {
    const float positive = gate > 0.0f ? gate : 0.0f;
    return positive * positive;
  }
}

}  // namespace billfish::cuda
