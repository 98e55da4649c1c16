// An outside program: multiplies by a 4-bit weight through nothing but the installed headers and library.
#include <billfish/linear.h>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  const int64_t n = 8;
  const int64_t k = 64;
  const std::vector<float> w(static_cast<size_t>(n * k), 0.5f);
  const auto weight = billfish::PackedWeight::Quantize({w.data(), billfish::DType::kF32, {n, k}}, billfish::schemes::kMxfp4);
  if (!weight) return std::printf("%s\n", std::string(weight.error().message()).c_str()), 1;
  billfish::LinearOptions options;
  options.activation = billfish::DType::kF32;
  const auto linear = billfish::Linear::Create(*weight, options);
  if (!linear) return std::printf("%s\n", std::string(linear.error().message()).c_str()), 1;
  const std::vector<float> x(static_cast<size_t>(k), 2.0f);
  std::vector<float> y(static_cast<size_t>(n));
  billfish::Workspace workspace;
  if (!workspace.Reserve(linear->WorkspaceBytes(1)).ok()) return 1;
  billfish::ExecContext context{workspace};
  if (!linear->Forward({x.data(), billfish::DType::kF32, {1, k}}, {y.data(), billfish::DType::kF32, {1, n}}, context).ok()) return 1;
  for (const float value : y) {
    if (std::fabs(value - 64.0f) > 1e-4f) return std::printf("expected 64, got %f\n", static_cast<double>(value)), 1;
  }
  std::printf("%s\n", std::string(linear->kernel()).c_str());
  return 0;
}
