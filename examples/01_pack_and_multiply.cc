// Quantises a matrix to MXFP4, multiplies by it, and says which kernel did it and why.
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

}  // namespace

int main() {
  constexpr int64_t kM = 3, kN = 512, kK = 1024;
  std::vector<float> w(kN * kK), x(kM * kK), y(kM * kN);
  for (size_t i = 0; i < w.size(); ++i) w[i] = std::sin(0.37f * static_cast<float>(i));
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::cos(0.11f * static_cast<float>(i));

  const auto weight = billfish::PackedWeight::Quantize({w.data(), billfish::DType::kF32, {kN, kK}}, billfish::schemes::kMxfp4);
  if (!weight) return Fail(weight.error());
  const auto linear = billfish::Linear::Create(*weight, {.activation = billfish::DType::kF32});
  if (!linear) return Fail(linear.error());

  billfish::Workspace workspace;
  if (auto status = workspace.Reserve(linear->WorkspaceBytes(kM)); !status.ok()) return Fail(status);
  billfish::ExecContext context{workspace};
  if (auto status = linear->Forward({x.data(), billfish::DType::kF32, {kM, kK}}, {y.data(), billfish::DType::kF32, {kM, kN}}, context);
      !status.ok()) {
    return Fail(status);
  }

  std::cout << "y[0,0] = " << y[0] << ", " << linear->weight_bytes() << " bytes of weight instead of " << w.size() * 2 << " in bf16\n";
  for (const billfish::Verdict& verdict :
       billfish::Explain({.scheme = weight->scheme(), .activation = billfish::DType::kF32, .N = kN, .K = kK})) {
    std::cout << (verdict.kernel == linear->kernel() ? "-> " : "   ") << verdict.kernel << ": " << verdict.reason << "\n";
  }
  return 0;
}
