// The reference against other software: PyTorch autograd in fp64, and transformers' gpt-oss.
#include <gtest/gtest.h>

#include "reference/moe.h"
#include "reference/route.h"
#include "support/moe_fixture.h"
#include "support/random_tensor.h"

namespace billfish::reference {
namespace {

Matrix MatrixOf(const std::vector<float>& values, int64_t rows, int64_t cols) {
  Matrix matrix(rows, cols);
  matrix.values.assign(values.begin(), values.end());
  return matrix;
}

MoeWeights WeightsOf(const test::MoeFixture& fixture) {
  return {&fixture.gate_up, &fixture.down, fixture.gate_up_bias, fixture.down_bias, fixture.order, fixture.activation};
}

TEST(MoeReference, EqualsPyTorchForEveryActivation) {
  for (const std::string& name : test::MoeLoraNames()) {
    if (!test::GoldenFile::Exists(test::MoeLoraPath(name))) GTEST_SKIP() << name << " is absent";
    const test::MoeFixture fixture = test::LoadMoeLora(test::MoeLoraPath(name));
    const std::vector<double> weights(fixture.weights.begin(), fixture.weights.end());
    const Matrix y = Moe(WeightsOf(fixture), MatrixOf(fixture.x, fixture.T, fixture.H), fixture.ids, weights);
    // The LoRA delta was folded into fp32 weights, and the golden y is fp32.
    EXPECT_LE(test::RelativeNorm(y.values, fixture.y), 3e-7) << name;
  }
}

TEST(MoeReference, AgreesWithTransformersForGptOss) {
  if (!test::GoldenFile::Exists(test::GptOssFolder() / "golden.safetensors")) GTEST_SKIP() << test::GptOssFolder() << " is absent";
  test::GptOssRouter router;
  const test::MoeFixture fixture = test::LoadGptOss(&router);
  const RouterRule rule{RouterRule::Score::kTopKSoftmax, fixture.gate_up.E(), fixture.top_k};
  std::vector<int32_t> ids;
  std::vector<double> weights;
  const std::vector<float> logits = test::RouterLogits(router, fixture);
  for (int64_t t = 0; t < fixture.T; ++t) {
    const std::vector<double> row(logits.begin() + t * rule.E, logits.begin() + (t + 1) * rule.E);
    const Route route = RouteToken(row, rule, 0);
    ids.insert(ids.end(), route.ids.begin(), route.ids.end());
    weights.insert(weights.end(), route.weights.begin(), route.weights.end());
  }
  const Matrix y = Moe(WeightsOf(fixture), MatrixOf(fixture.x, fixture.T, fixture.H), ids, weights);
  // transformers ran the experts of this block in bf16 (x, every step of the activation, h and both products rounded), which alone is
  // 0.5 %; the formula itself is held to 3e-7 by the test above. Wrong order, limit or constants are off by several percent.
  EXPECT_LE(test::RelativeNorm(y.values, fixture.y), 7e-3);
  MoeWeights wrong = WeightsOf(fixture);
  wrong.activation.alpha = 1.0f;
  EXPECT_GE(test::RelativeNorm(Moe(wrong, MatrixOf(fixture.x, fixture.T, fixture.H), ids, weights).values, fixture.y), 2e-2);
}

TEST(MoeReference, SkippedSlotsAddNothing) {
  const PackedWeight gate_up = test::RandomWeight(schemes::kMxfp4, 2, 8, 32, 1), down = test::RandomWeight(schemes::kMxfp4, 2, 32, 4, 2);
  const MoeWeights moe{&gate_up, &down, {}, {}, GateUpOrder::kConcatenated, {Activation::Kind::kSwiglu}};
  const Matrix x = MatrixOf(test::Gaussian(32, 3), 1, 32);
  const std::vector<double> weights = {0.5, 0.25};
  const Matrix both = Moe(moe, x, std::vector<int32_t>{1, -1}, weights);
  const Matrix one = Moe(moe, x, std::vector<int32_t>{1}, std::vector<double>{0.5});
  EXPECT_EQ(both.values, one.values);
  for (double value : Moe(moe, x, std::vector<int32_t>{-1, -1}, weights).values) EXPECT_EQ(value, 0);
}

TEST(MoeReference, SharedExpertIsADenseMlpAddedToTheResult) {
  const PackedWeight gate_up = test::RandomWeight(schemes::kF32, 1, 8, 32, 1), down = test::RandomWeight(schemes::kF32, 1, 32, 4, 2);
  const MoeWeights shared{&gate_up, &down, {}, {}, GateUpOrder::kConcatenated, {Activation::Kind::kSwiglu}};
  const Matrix x = MatrixOf(test::Gaussian(64, 3), 2, 32);
  const Matrix routed = MatrixOf(test::Gaussian(64, 4), 2, 32);
  const Matrix sum = AddSharedExpert(routed, shared, x);
  const Matrix h = ActivateRows(Linear(gate_up, x, {}), shared.activation, shared.order);
  const Matrix out = Linear(down, h, {});
  for (size_t i = 0; i < sum.values.size(); ++i) EXPECT_DOUBLE_EQ(sum.values[i], routed.values[i] + out.values[i]);
}

TEST(LinearReference, OneHotActivationsReadOneWeight) {
  for (std::string_view name : SchemeNames()) {
    const PackedWeight weight = test::WithRandomPerm(test::RandomWeight(*SchemeByName(name), 1, 5, 40, 9), 10);
    const std::vector<float> values = test::DequantizedF32(weight);
    Matrix x(40, 40);
    for (int64_t k = 0; k < 40; ++k) x.at(k, k) = 1;
    const std::vector<float> bias = {1, 2, 3, 4, 5};
    const Matrix y = Linear(weight, x, bias);
    for (int64_t k = 0; k < 40; ++k) {
      for (int64_t n = 0; n < 5; ++n) {
        EXPECT_EQ(y.at(k, n), static_cast<double>(values[static_cast<size_t>(n * 40 + k)]) + static_cast<double>(n + 1)) << name;
      }
    }
  }
}

TEST(GroupedLinearReference, EachRowMeetsItsExpertAndItsToken) {
  const PackedWeight stack = test::RandomWeight(schemes::kNvfp4, 3, 4, 32, 11);
  const Matrix x = MatrixOf(test::Gaussian(64, 12), 2, 32);
  const std::vector<int64_t> offsets = {0, 2, 2, 3};
  const std::vector<int32_t> gather = {1, 0, 1};
  const std::vector<float> bias = test::Gaussian(12, 13);
  const Matrix y = GroupedLinear(stack, x, offsets, gather, bias);
  const int64_t experts[] = {0, 0, 2};
  for (int64_t r = 0; r < 3; ++r) {
    const int64_t e = experts[r];
    const Matrix one = Linear(*stack.Expert(e), x, std::span<const float>(bias).subspan(static_cast<size_t>(e * 4), 4));
    for (int64_t n = 0; n < 4; ++n) EXPECT_EQ(y.at(r, n), one.at(gather[static_cast<size_t>(r)], n));
  }
}

}  // namespace
}  // namespace billfish::reference
