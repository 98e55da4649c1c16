#include "reference/activation.h"

#include <algorithm>
#include <cmath>

namespace billfish::reference {
namespace {

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

double Silu(double x) { return x * Sigmoid(x); }

double GeluTanh(double x) {
  const double root_two_over_pi = 0.79788456080286535588;
  return 0.5 * x * (1.0 + std::tanh(root_two_over_pi * (x + 0.044715 * x * x * x)));
}

}  // namespace

double Activate(const Activation& activation, double g, double u) {
  const double limit = activation.limit;
  switch (activation.kind) {
    case Activation::Kind::kSwiglu:
      return Silu(g) * u;
    case Activation::Kind::kSwigluClamped:
      return Silu(std::min(g, limit)) * std::clamp(u, -limit, limit);
    case Activation::Kind::kSwigluOai: {
      const double gate = std::min(g, limit), up = std::clamp(u, -limit, limit);
      return gate * Sigmoid(activation.alpha * gate) * (up + activation.beta);
    }
    case Activation::Kind::kGegluTanh:
      return GeluTanh(g) * u;
    case Activation::Kind::kSilu:
      return Silu(g);
    case Activation::Kind::kRelu2: {
      const double positive = std::max(g, 0.0);
      return positive * positive;
    }
  }
  return 0;
}

}  // namespace billfish::reference
