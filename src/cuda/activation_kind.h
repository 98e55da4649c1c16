// The activations that kernels fuse, by number. Shared with device code: freestanding.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// In the order of billfish::Activation::Kind (include/billfish/moe.h); the value of BF_ACTIVATION.
enum class ActivationKind : int { kNone = -1, kSwiglu = 0, kSwigluClamped = 1, kSwigluOai = 2, kGegluTanh = 3, kSilu = 4, kRelu2 = 5 };

BILLFISH_HD constexpr bool IsGated(ActivationKind kind) {
  return kind == ActivationKind::kSwiglu || kind == ActivationKind::kSwigluClamped || kind == ActivationKind::kSwigluOai ||
         kind == ActivationKind::kGegluTanh;
}

struct ActivationParameters {
  float limit = 0, alpha = 0, beta = 0;
};

}  // namespace billfish::cuda
