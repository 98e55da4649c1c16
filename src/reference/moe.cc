#include "reference/moe.h"

#include "reference/activation.h"

namespace billfish::reference {
namespace {

Matrix RowOf(const Matrix& x, int64_t r) {
  Matrix row(1, x.cols);
  for (int64_t c = 0; c < x.cols; ++c) row.at(0, c) = x.at(r, c);
  return row;
}

// Offsets that give all `rows` to expert e.
std::vector<int64_t> AllRowsTo(int64_t e, int64_t E, int64_t rows) {
  std::vector<int64_t> offsets(static_cast<size_t>(E) + 1, 0);
  for (int64_t i = e + 1; i <= E; ++i) offsets[static_cast<size_t>(i)] = rows;
  return offsets;
}

Matrix Expert(const MoeWeights& moe, int64_t e, const Matrix& x) {
  const std::vector<int64_t> offsets = AllRowsTo(e, moe.gate_up->E(), x.rows);
  const Matrix gate_up = GroupedLinear(*moe.gate_up, x, offsets, {}, moe.gate_up_bias);
  return GroupedLinear(*moe.down, ActivateRows(gate_up, moe.activation, moe.order), offsets, {}, moe.down_bias);
}

}  // namespace

Matrix ActivateRows(const Matrix& gate_up, const Activation& activation, GateUpOrder order) {
  if (!activation.gated()) {
    Matrix h(gate_up.rows, gate_up.cols);
    for (int64_t r = 0; r < h.rows; ++r) {
      for (int64_t i = 0; i < h.cols; ++i) h.at(r, i) = Activate(activation, gate_up.at(r, i), 0);
    }
    return h;
  }
  const int64_t I = gate_up.cols / 2;
  const bool interleaved = order == GateUpOrder::kInterleaved;
  Matrix h(gate_up.rows, I);
  for (int64_t r = 0; r < h.rows; ++r) {
    for (int64_t i = 0; i < I; ++i) {
      h.at(r, i) = Activate(activation, gate_up.at(r, interleaved ? 2 * i : i), gate_up.at(r, interleaved ? 2 * i + 1 : I + i));
    }
  }
  return h;
}

Matrix Moe(const MoeWeights& moe, const Matrix& x, std::span<const int32_t> ids, std::span<const double> weights) {
  const int64_t top_k = x.rows == 0 ? 0 : static_cast<int64_t>(ids.size()) / x.rows;
  Matrix y(x.rows, moe.down->N());
  for (int64_t t = 0; t < x.rows; ++t) {
    const Matrix token = RowOf(x, t);
    for (int64_t slot = t * top_k; slot < (t + 1) * top_k; ++slot) {
      if (ids[slot] < 0) continue;
      const Matrix out = Expert(moe, ids[slot], token);
      for (int64_t c = 0; c < y.cols; ++c) y.at(t, c) += weights[slot] * out.at(0, c);
    }
  }
  return y;
}

Matrix AddSharedExpert(const Matrix& y, const MoeWeights& shared, const Matrix& x) {
  Matrix sum = Expert(shared, 0, x);
  for (size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += y.values[i];
  return sum;
}

}  // namespace billfish::reference
