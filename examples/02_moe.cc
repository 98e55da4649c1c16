// One Mixture-of-Experts block with 4-bit experts: route, gate|up, activation, down, combine.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <vector>

#include "billfish/billfish.h"

namespace {

int Fail(const billfish::Status& status) {
  std::cerr << status.message() << "\n";
  return 1;
}

std::vector<float> Wave(int64_t count, float step) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.1f * std::sin(step * static_cast<float>(i));
  return values;
}

}  // namespace

int main() {
  constexpr int64_t kT = 5, kE = 8, kTopK = 2, kH = 256, kI = 128;
  const std::vector<float> gate_up = Wave(kE * 2 * kI * kH, 0.21f), down = Wave(kE * kH * kI, 0.13f), x = Wave(kT * kH, 0.7f);
  const std::vector<float> logits = Wave(kT * kE, 1.7f);

  const auto packed_gate_up =
      billfish::PackedWeight::Quantize({gate_up.data(), billfish::DType::kF32, {kE, 2 * kI, kH}}, billfish::schemes::kNvfp4);
  if (!packed_gate_up) return Fail(packed_gate_up.error());
  const auto packed_down = billfish::PackedWeight::Quantize({down.data(), billfish::DType::kF32, {kE, kH, kI}}, billfish::schemes::kNvfp4);
  if (!packed_down) return Fail(packed_down.error());
  const auto layer =
      billfish::MoeLayer::Create(*packed_gate_up, *packed_down,
                                 {.activation = {.kind = billfish::Activation::Kind::kSwiglu}, .activation_dtype = billfish::DType::kF32});
  if (!layer) return Fail(layer.error());

  const billfish::RouterRule rule{.score = billfish::RouterRule::Score::kSoftmax, .E = kE, .top_k = kTopK, .renormalize = true};
  billfish::Workspace workspace;
  if (auto status = workspace.Reserve(std::max(layer->WorkspaceBytes(kT, kTopK), billfish::RouteWorkspaceBytes(kT, rule))); !status.ok()) {
    return Fail(status);
  }
  billfish::ExecContext context{workspace};
  std::vector<int32_t> ids(kT * kTopK);
  std::vector<float> weights(kT * kTopK);
  const billfish::Routing routing{{ids.data(), billfish::DType::kI32, {kT, kTopK}}, {weights.data(), billfish::DType::kF32, {kT, kTopK}}};
  if (auto status = billfish::RouteTopK({logits.data(), billfish::DType::kF32, {kT, kE}}, rule, {}, routing, context); !status.ok()) {
    return Fail(status);
  }
  std::vector<float> y(kT * kH);
  if (auto status =
          layer->Forward({x.data(), billfish::DType::kF32, {kT, kH}}, routing, {y.data(), billfish::DType::kF32, {kT, kH}}, context);
      !status.ok()) {
    return Fail(status);
  }
  std::cout << "token 0 went to experts " << ids[0] << " and " << ids[1] << " with weights " << weights[0] << " and " << weights[1]
            << "; y[0,0] = " << y[0] << "\n";
  return 0;
}
