// Every scheme times every kind of shape times every kernel of this machine, against fp64.
#include <gtest/gtest.h>

#include "support/linear_problem.h"
#include "support/scheme_test.h"

namespace billfish {
namespace {

using test::Numbers;

struct Shape {
  int64_t N, K;
};

std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (int64_t N : {1, 2, 17, 64, 96}) {
    for (int64_t K : {1, 2, 17, 64, 96, 704}) shapes.push_back({N, K});
  }
  for (const Shape& shape : {Shape{704, 96}, Shape{704, 17}, Shape{2880, 64}, Shape{33, 2880}, Shape{5, 10944}}) shapes.push_back(shape);
  return shapes;
}

class LinearProperty : public test::SchemeTest {};
INSTANTIATE_TEST_SUITE_P(Schemes, LinearProperty, test::EverySchemeName(), test::SchemeTestName);

void CheckLinear(const PackedWeight& weight, int64_t M, DType x_type, DType y_type, const std::vector<float>& bias, uint64_t seed) {
  const int64_t N = weight.N(), K = weight.K();
  Numbers x(test::Gaussian(static_cast<size_t>(M * K), seed), x_type);
  const test::Expected expected = test::Multiply(weight, x.Values(), {0, M}, {}, bias);
  for (const std::string& kernel : test::SupportedKernels(test::ProblemOf(Op::kLinear, weight, x_type))) {
    LinearOptions options;
    options.activation = x_type;
    options.kernel = kernel;
    if (!bias.empty()) options.bias = ConstTensorView(bias.data(), DType::kF32, {N});
    const auto linear = Linear::Create(weight, options);
    ASSERT_TRUE(linear) << linear.status().message();
    EXPECT_EQ(linear->kernel(), kernel);
    Workspace workspace;
    ASSERT_TRUE(workspace.Reserve(linear->WorkspaceBytes(M)).ok());
    ExecContext ctx{workspace, 2};
    Numbers y(M * N, y_type);
    const Status status = linear->Forward(x.View(M, K), y.View(M, N), ctx);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(test::NumericChecker(expected, test::BoundsFor(y_type), kernel).Check([&](int64_t r, int64_t c) { return y[r * N + c]; }))
        << weight.scheme().Name() << " [" << N << ", " << K << "], M = " << M;
  }
}

TEST_P(LinearProperty, EveryKernelAgreesWithTheDefinitionForEveryShape) {
  uint64_t seed = 100;
  for (const Shape& shape : Shapes()) {
    const PackedWeight weight = test::RandomWeight(scheme(), 1, shape.N, shape.K, ++seed);
    const std::vector<float> bias = seed % 2 == 0 ? test::Gaussian(static_cast<size_t>(shape.N), seed) : std::vector<float>();
    const DType x_type = seed % 3 == 0 ? DType::kF32 : DType::kBF16;
    const DType y_type = seed % 5 == 0 ? DType::kBF16 : DType::kF32;
    CheckLinear(weight, 1, x_type, y_type, bias, seed);
    CheckLinear(weight, 2 + static_cast<int64_t>(seed % 19), x_type, y_type, bias, seed + 1);
  }
}

TEST_P(LinearProperty, ManyRowsAgreeToo) {
  const PackedWeight weight = test::RandomWeight(scheme(), 1, 96, 192, 7);
  CheckLinear(weight, 100, DType::kBF16, DType::kF32, {}, 8);
  CheckLinear(weight, 65, DType::kF32, DType::kBF16, {}, 9);
  CheckLinear(test::RandomWeight(scheme(), 1, 3, 33, 10), 1500, DType::kBF16, DType::kF32, {}, 11);
}

TEST_P(LinearProperty, ActOrderReadsTheRightColumns) {
  const PackedWeight weight = test::WithRandomPerm(test::RandomWeight(scheme(), 1, 40, 136, 7), 8);
  CheckLinear(weight, 1, DType::kBF16, DType::kF32, {}, 9);
  CheckLinear(weight, 6, DType::kF32, DType::kF32, {}, 10);
}

TEST_P(LinearProperty, OneHotActivationsReadOneWeight) {
  const int64_t N = 33, K = 70;
  const PackedWeight weight = test::RandomWeight(scheme(), 1, N, K, 12);
  const std::vector<float> w = test::DecodedF32(weight);
  std::vector<float> x(static_cast<size_t>(K * K), 0.0f);
  for (int64_t k = 0; k < K; ++k) x[static_cast<size_t>(k * K + k)] = 1.0f;
  for (const std::string& kernel : test::SupportedKernels(test::ProblemOf(Op::kLinear, weight, DType::kF32))) {
    LinearOptions options;
    options.activation = DType::kF32;
    options.kernel = kernel;
    const auto linear = Linear::Create(weight, options);
    ASSERT_TRUE(linear);
    Workspace workspace;
    ASSERT_TRUE(workspace.Reserve(linear->WorkspaceBytes(K)).ok());
    ExecContext ctx{workspace, 2};
    std::vector<float> y(static_cast<size_t>(K * N));
    ASSERT_TRUE(linear->Forward(ConstTensorView(x.data(), DType::kF32, {K, K}), TensorView(y.data(), DType::kF32, {K, N}), ctx).ok());
    for (int64_t k = 0; k < K; ++k) {
      for (int64_t n = 0; n < N; ++n) {
        const float expected = w[static_cast<size_t>(n * K + k)];
        // int4 kernels may form the value as (q - zero) * scale in another order of two products.
        EXPECT_NEAR(y[static_cast<size_t>(k * N + n)], expected, std::fabs(expected) * 3e-7f) << kernel << " n " << n << " k " << k;
      }
    }
  }
}

TEST_P(LinearProperty, FastModeStaysWithinItsNorm) {
  const int64_t N = 160, K = 512, M = 9;
  const PackedWeight weight = test::RandomWeight(scheme(), 1, N, K, 13);
  Numbers x(test::Gaussian(static_cast<size_t>(M * K), 14), DType::kBF16);
  const test::Expected expected = test::Multiply(weight, x.Values(), {0, M}, {}, {});
  for (const std::string& kernel : test::SupportedKernels(test::ProblemOf(Op::kLinear, weight, DType::kBF16, Mode::kFast))) {
    LinearOptions options;
    options.mode = Mode::kFast;
    options.kernel = kernel;
    const auto linear = Linear::Create(weight, options);
    ASSERT_TRUE(linear) << linear.status().message();
    Workspace workspace;
    ASSERT_TRUE(workspace.Reserve(linear->WorkspaceBytes(M)).ok());
    ExecContext ctx{workspace, 2};
    Numbers y(M * N, DType::kF32);
    ASSERT_TRUE(linear->Forward(x.View(M, K), y.View(M, N), ctx).ok());
    double error = 0, size = 0;
    for (int64_t i = 0; i < M * N; ++i) {
      error += std::pow(y[i] - expected.values[static_cast<size_t>(i)], 2);
      size += std::pow(expected.values[static_cast<size_t>(i)], 2);
    }
    EXPECT_LE(std::sqrt(error / size), 5.5e-3) << kernel;
  }
}

TEST_P(LinearProperty, ResultsAreBitwiseEqualForAnyThreadCount) {
  const PackedWeight weight = test::RandomWeight(scheme(), 1, 300, 288, 15);
  const auto linear = Linear::Create(weight, {});
  ASSERT_TRUE(linear);
  for (int64_t M : {1, 37}) {
    Numbers x(test::Gaussian(static_cast<size_t>(M * 288), 16), DType::kBF16);
    Workspace workspace;
    ASSERT_TRUE(workspace.Reserve(linear->WorkspaceBytes(M)).ok());
    std::vector<float> first;
    for (int threads : {1, 2, 3, 8}) {
      Numbers y(M * 300, DType::kF32);
      ExecContext ctx{workspace, threads};
      ASSERT_TRUE(linear->Forward(x.View(M, 288), y.View(M, 300), ctx).ok());
      if (first.empty()) first = y.Values();
      EXPECT_EQ(y.Values(), first) << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace billfish
