// The definition of Linear and GroupedLinear: decoded weights times activations, summed in fp64 in the order of k.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "billfish/weight.h"

namespace billfish::reference {

/// Row-major fp64.
struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<double> values;

  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), cols(c), values(static_cast<size_t>(r * c)) {}
  double& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r * cols + c)]; }
  double at(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * cols + c)]; }
  std::span<const double> row(int64_t r) const { return {values.data() + r * cols, static_cast<size_t>(cols)}; }
};

/// y[M,N] = x[M,K] . W[N,K]^T + bias[N]; bias may be empty. `weight` has E = 1.
Matrix Linear(const PackedWeight& weight, const Matrix& x, std::span<const float> bias);

/// For expert e and row r in [offsets[e], offsets[e+1]): y[r] = W[e] . x[gather.empty() ? r : gather[r]] + bias[e].
/// bias is empty or [E,N].
Matrix GroupedLinear(const PackedWeight& weight, const Matrix& x, std::span<const int64_t> offsets, std::span<const int32_t> gather,
                     std::span<const float> bias);

}  // namespace billfish::reference
