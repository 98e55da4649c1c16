#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "reference/moe.h"
#include "support/count_allocations.h"
#include "support/linear_problem.h"
#include "support/moe_fixture.h"

namespace billfish {
namespace {

using test::Numbers;
using testing::HasSubstr;
using Kind = Activation::Kind;

reference::Matrix MatrixOf(const std::vector<float>& values, int64_t rows, int64_t cols) {
  reference::Matrix matrix(rows, cols);
  matrix.values.assign(values.begin(), values.end());
  return matrix;
}

struct Call {
  int64_t T, top_k;
  std::vector<int32_t> ids;
  std::vector<float> weights;

  Routing View() { return {TensorView(ids.data(), DType::kI32, {T, top_k}), TensorView(weights.data(), DType::kF32, {T, top_k})}; }
};

Call RandomCall(int64_t T, int64_t top_k, int64_t E, uint64_t seed, bool with_gaps) {
  std::mt19937_64 rng(seed);
  Call call{T, top_k, {}, test::Gaussian(static_cast<size_t>(T * top_k), seed)};
  for (int64_t i = 0; i < T * top_k; ++i) {
    call.ids.push_back(with_gaps && rng() % 5 == 0 ? -1 : static_cast<int32_t>(rng() % static_cast<size_t>(E)));
  }
  return call;
}

Result<std::vector<float>> RunLayer(const MoeLayer& layer, Numbers& x, Call& call, DType y_type, int threads) {
  Workspace workspace;
  EXPECT_TRUE(workspace.Reserve(layer.WorkspaceBytes(call.T, call.top_k)).ok());
  ExecContext ctx{workspace, threads};
  Numbers y(call.T * layer.H(), y_type);
  const Status status = layer.Forward(x.View(call.T, layer.H()), call.View(), y.View(call.T, layer.H()), ctx);
  if (!status.ok()) return status;
  return y.Values();
}

MoeOptions OptionsFor(const test::MoeFixture& fixture, DType dtype) {
  MoeOptions options{fixture.activation};
  options.order = fixture.order;
  options.activation_dtype = dtype;
  if (!fixture.gate_up_bias.empty()) {
    options.gate_up_bias = ConstTensorView(fixture.gate_up_bias.data(), DType::kF32, {fixture.gate_up.E(), fixture.gate_up.N()});
    options.down_bias = ConstTensorView(fixture.down_bias.data(), DType::kF32, {fixture.down.E(), fixture.down.N()});
  }
  return options;
}

double RelativeError(const std::vector<float>& found, const std::vector<double>& wanted) {
  double error = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += (found[i] - wanted[i]) * (found[i] - wanted[i]);
    size += wanted[i] * wanted[i];
  }
  return std::sqrt(error / (size + 1e-300));
}

TEST(MoeLayer, EqualsPyTorchForEveryActivation) {
  for (const std::string& name : test::MoeLoraNames()) {
    if (!test::GoldenFile::Exists(test::MoeLoraPath(name))) GTEST_SKIP() << name << " is absent";
    const test::MoeFixture fixture = test::LoadMoeLora(test::MoeLoraPath(name));
    const auto layer = MoeLayer::Create(fixture.gate_up, fixture.down, OptionsFor(fixture, DType::kF32));
    ASSERT_TRUE(layer) << layer.status().message();
    Numbers x(fixture.x, DType::kF32);
    Call call{fixture.T, fixture.top_k, fixture.ids, fixture.weights};
    const auto y = RunLayer(*layer, x, call, DType::kF32, 2);
    ASSERT_TRUE(y) << y.status().message();
    EXPECT_LE(test::RelativeNorm({y->begin(), y->end()}, fixture.y), 1e-6) << name;
  }
}

TEST(MoeLayer, AgreesWithTransformersForGptOss) {
  if (!test::GoldenFile::Exists(test::GptOssFolder() / "golden.safetensors")) GTEST_SKIP() << test::GptOssFolder() << " is absent";
  test::GptOssRouter router;
  const test::MoeFixture fixture = test::LoadGptOss(&router);
  const RouterRule rule{RouterRule::Score::kTopKSoftmax, fixture.gate_up.E(), fixture.top_k};
  Call call{fixture.T, fixture.top_k, std::vector<int32_t>(static_cast<size_t>(fixture.T * 4)),
            std::vector<float>(static_cast<size_t>(fixture.T * 4))};
  const std::vector<float> logits = test::RouterLogits(router, fixture);
  Workspace workspace;
  ASSERT_TRUE(workspace.Reserve(RouteWorkspaceBytes(fixture.T, rule)).ok());
  ExecContext ctx{workspace, 2};
  ASSERT_TRUE(RouteTopK(ConstTensorView(logits.data(), DType::kF32, {fixture.T, rule.E}), rule, {}, call.View(), ctx).ok());
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const auto layer = MoeLayer::Create(fixture.gate_up, fixture.down, OptionsFor(fixture, dtype));
    ASSERT_TRUE(layer) << layer.status().message();
    Numbers x(fixture.x, dtype);
    const auto y = RunLayer(*layer, x, call, DType::kF32, 2);
    ASSERT_TRUE(y);
    // The golden block was computed with experts in bf16; see the reference's own test.
    EXPECT_LE(test::RelativeNorm({y->begin(), y->end()}, fixture.y), 8e-3);
  }
}

TEST(MoeLayer, EqualsTheDefinitionForEverySchemeActivationAndOrder) {
  const std::vector<Activation> activations = {
      {Kind::kSwiglu}, {Kind::kSwigluClamped, 0.5f}, {Kind::kSwigluOai, 0.5f, 1.702f, 1.0f}, {Kind::kGegluTanh}, {Kind::kSilu},
      {Kind::kRelu2}};
  uint64_t seed = 50;
  for (std::string_view name : SchemeNames()) {
    for (const Activation& activation : activations) {
      ++seed;
      const bool interleaved = activation.gated() && seed % 2 == 0;
      const int64_t E = 1 + static_cast<int64_t>(seed % 9), H = 17 + static_cast<int64_t>(seed % 5) * 16,
                    I = 10 + static_cast<int64_t>(seed % 7) * 9;
      const int64_t T = 1 + static_cast<int64_t>(seed * 7 % 23), top_k = 1 + static_cast<int64_t>(seed % 4);
      const DType x_type = seed % 3 == 0 ? DType::kBF16 : DType::kF32, y_type = seed % 4 == 0 ? DType::kBF16 : DType::kF32;
      const int64_t gate_up_rows = activation.gated() ? 2 * I : I;
      const PackedWeight gate_up = test::RandomWeight(*SchemeByName(name), E, gate_up_rows, H, seed);
      const PackedWeight down = test::RandomWeight(*SchemeByName(name), E, H, I, seed + 1);
      const std::vector<float> gate_up_bias = test::RoundedToBF16(test::Gaussian(static_cast<size_t>(E * gate_up_rows), seed));
      const std::vector<uint16_t> stored_bias = test::ToBF16(gate_up_bias);
      const std::vector<float> down_bias = test::Gaussian(static_cast<size_t>(E * H), seed + 1);
      MoeOptions options{activation};
      options.order = interleaved ? GateUpOrder::kInterleaved : GateUpOrder::kConcatenated;
      options.activation_dtype = x_type;
      options.gate_up_bias = ConstTensorView(stored_bias.data(), DType::kBF16, {E, gate_up_rows});
      options.down_bias = ConstTensorView(down_bias.data(), DType::kF32, {E, H});
      const auto layer = MoeLayer::Create(gate_up, down, options);
      ASSERT_TRUE(layer) << layer.status().message();
      EXPECT_EQ(layer->E(), E);
      EXPECT_EQ(layer->H(), H);
      EXPECT_EQ(layer->I(), I);
      Numbers x(test::Gaussian(static_cast<size_t>(T * H), seed), x_type);
      Call call = RandomCall(T, top_k, E, seed, seed % 2 == 1);
      const reference::MoeWeights moe{&gate_up, &down, gate_up_bias, down_bias, options.order, activation};
      const reference::Matrix expected =
          reference::Moe(moe, MatrixOf(x.Values(), T, H), call.ids, std::vector<double>(call.weights.begin(), call.weights.end()));
      std::vector<float> first;
      for (int threads : {2, 1, 3, 8}) {
        const auto y = RunLayer(*layer, x, call, y_type, threads);
        ASSERT_TRUE(y) << y.status().message();
        if (first.empty()) first = *y;
        EXPECT_EQ(*y, first) << threads << " threads";
      }
      // h is rounded to bf16 where x is bf16; y likewise.
      const double tolerance = x_type == DType::kBF16 || y_type == DType::kBF16 ? 4e-3 : 1e-6;
      EXPECT_LE(RelativeError(first, expected.values), tolerance) << name << " activation " << static_cast<int>(activation.kind);
    }
  }
}

TEST(MoeLayer, ManyTokensGoThroughInChunksWithTheSameResult) {
  const int64_t E = 7, H = 32, I = 24, T = 900, top_k = 3;
  const PackedWeight gate_up = test::RandomWeight(schemes::kMxfp4, E, 2 * I, H, 1), down = test::RandomWeight(schemes::kMxfp4, E, H, I, 2);
  MoeOptions options{{Kind::kSwiglu}};
  options.activation_dtype = DType::kF32;
  const auto layer = MoeLayer::Create(gate_up, down, options);
  ASSERT_TRUE(layer);
  Numbers x(test::Gaussian(static_cast<size_t>(T * H), 3), DType::kF32);
  Call call = RandomCall(T, top_k, E, 4, true);
  const auto y = RunLayer(*layer, x, call, DType::kF32, 2);
  ASSERT_TRUE(y);
  const reference::MoeWeights moe{&gate_up, &down, {}, {}, GateUpOrder::kConcatenated, options.activation};
  const reference::Matrix expected =
      reference::Moe(moe, MatrixOf(x.Values(), T, H), call.ids, std::vector<double>(call.weights.begin(), call.weights.end()));
  EXPECT_LE(RelativeError(*y, expected.values), 1e-6);
  EXPECT_EQ(*RunLayer(*layer, x, call, DType::kF32, 3), *y);
}

TEST(MoeLayer, ExpertWithoutTokensIsNeverRead) {
  const int64_t E = 3, H = 32, I = 16;
  const auto poisoned = [&](int64_t N, int64_t K, uint64_t seed) {
    std::vector<float> values = test::DecodedF32(test::RandomWeight(schemes::kF32, E, N, K, seed));
    std::fill_n(values.begin() + N * K, N * K, NAN);
    WeightParts parts;
    parts.codes = Bytes::Own(values);
    return *PackedWeight::FromParts(schemes::kF32, E, N, K, parts);
  };
  const auto layer = MoeLayer::Create(poisoned(2 * I, H, 1), poisoned(H, I, 2), {{Kind::kSwiglu}});
  ASSERT_TRUE(layer);
  Numbers x(test::Gaussian(static_cast<size_t>(2 * H), 3), DType::kBF16);
  Call call{2, 2, {0, 2, 2, -1}, {0.5f, 0.5f, 1.0f, NAN}};
  const std::vector<float> sound = *RunLayer(*layer, x, call, DType::kF32, 2);
  for (float value : sound) EXPECT_TRUE(std::isfinite(value));
  call.ids[0] = 1;
  EXPECT_TRUE(std::isnan(RunLayer(*layer, x, call, DType::kF32, 2)->front()));
}

TEST(MoeLayer, TokensWithoutExpertsBecomeZeroAndNoTokensAreNoWork) {
  const auto layer = MoeLayer::Create(test::RandomWeight(schemes::kMxfp4, 2, 32, 64, 1), test::RandomWeight(schemes::kMxfp4, 2, 64, 16, 2),
                                      {{Kind::kSwiglu}});
  ASSERT_TRUE(layer);
  Numbers x(test::Gaussian(3 * 64, 3), DType::kBF16);
  Call call{3, 2, {-1, -1, -1, -1, -1, -1}, std::vector<float>(6, 1.0f)};
  const std::vector<float> y = *RunLayer(*layer, x, call, DType::kF32, 2);
  for (float value : y) EXPECT_EQ(value, 0.0f);
  Call none{0, 2, {}, {}};
  EXPECT_TRUE(RunLayer(*layer, x, none, DType::kF32, 2));
}

TEST(MoeLayer, RoutingAndForwardAllocateNothing) {
  const int64_t E = 4, H = 64, T = 600;
  const PackedWeight gate_up = test::RandomWeight(schemes::kMxfp4, E, 32, H, 1), down = test::RandomWeight(schemes::kMxfp4, E, H, 16, 2);
  const auto layer = MoeLayer::Create(gate_up, down, {{Kind::kSwiglu}});
  ASSERT_TRUE(layer);
  RouterRule rule{};
  rule.score = RouterRule::Score::kSoftmax;
  rule.E = E;
  rule.top_k = 2;
  Numbers x(test::Gaussian(static_cast<size_t>(T * H), 3), DType::kBF16), y(T * H, DType::kF32);
  const std::vector<float> logits = test::Gaussian(static_cast<size_t>(T * E), 4);
  Call call = RandomCall(T, 2, E, 5, false);
  Workspace workspace;
  ASSERT_TRUE(workspace.Reserve(std::max(layer->WorkspaceBytes(T, 2), RouteWorkspaceBytes(T, rule))).ok());
  ExecContext ctx{workspace, 2};
  for (int round = 0; round < 2; ++round) {
    const int64_t before = test::allocations;
    ASSERT_TRUE(RouteTopK(ConstTensorView(logits.data(), DType::kF32, {T, E}), rule, {}, call.View(), ctx).ok());
    ASSERT_TRUE(layer->Forward(x.View(T, H), call.View(), y.View(T, H), ctx).ok());
    if (round > 0) {
      EXPECT_EQ(test::allocations, before);
    }
  }
}

TEST(MoeLayer, RowsOfXAndYMayBeStrided) {
  const auto layer = MoeLayer::Create(test::RandomWeight(schemes::kMxfp4, 2, 32, 64, 1), test::RandomWeight(schemes::kMxfp4, 2, 64, 16, 2),
                                      {{Kind::kSwiglu}});
  ASSERT_TRUE(layer);
  const std::vector<float> values = test::Gaussian(2 * 64, 3);
  std::vector<float> wide(200, 9.0f);
  std::copy_n(values.begin(), 64, wide.begin());
  std::copy_n(values.begin() + 64, 64, wide.begin() + 100);
  Numbers x(values, DType::kBF16), strided(wide, DType::kBF16), y(200, DType::kBF16);
  Call call = RandomCall(2, 2, 2, 4, false);
  Workspace workspace;
  ASSERT_TRUE(workspace.Reserve(layer->WorkspaceBytes(2, 2)).ok());
  ExecContext ctx{workspace, 2};
  ASSERT_TRUE(layer->Forward(strided.View(2, 64, 100), call.View(), y.View(2, 64, 80), ctx).ok());
  const std::vector<float> expected = *RunLayer(*layer, x, call, DType::kBF16, 2);
  for (int64_t t = 0; t < 2; ++t) {
    for (int64_t c = 0; c < 64; ++c) EXPECT_EQ(y[t * 80 + c], expected[static_cast<size_t>(t * 64 + c)]);
    for (int64_t c = 64; c < 80; ++c) EXPECT_TRUE(std::isnan(y[t * 80 + c]));
  }
}

TEST(MoeLayer, RefusesWeightsThatDoNotFitTogether) {
  const PackedWeight gate_up = test::RandomWeight(schemes::kMxfp4, 2, 32, 64, 1), down = test::RandomWeight(schemes::kMxfp4, 2, 64, 16, 2);
  const auto refusal = [](const PackedWeight& a, const PackedWeight& b, const MoeOptions& options) {
    return std::string(MoeLayer::Create(a, b, options).status().message());
  };
  EXPECT_THAT(refusal(gate_up, test::RandomWeight(schemes::kMxfp4, 3, 64, 16, 2), {{Kind::kSwiglu}}),
              HasSubstr("gate_up is [2, 32, 64] and down is [3, 64, 16]"));
  EXPECT_THAT(refusal(gate_up, down, {{Kind::kSilu}}), HasSubstr("an ungated activation takes [E, I, H] and [E, H, I]"));
  EXPECT_THAT(refusal(gate_up, down, {{Kind::kSwigluClamped}}), HasSubstr("clamped swiglu needs limit > 0"));
  MoeOptions options{{Kind::kRelu2}};
  options.order = GateUpOrder::kInterleaved;
  EXPECT_THAT(refusal(gate_up, test::RandomWeight(schemes::kMxfp4, 2, 64, 32, 2), options), HasSubstr("nothing to interleave"));
  const std::vector<float> bias(64, 0.0f);
  for (GateUpOrder order : {GateUpOrder::kConcatenated, GateUpOrder::kInterleaved}) {
    options = MoeOptions{{Kind::kSwiglu}};
    options.order = order;
    options.gate_up_bias = ConstTensorView(bias.data(), DType::kF32, {2, 16});
    EXPECT_THAT(refusal(gate_up, down, options), HasSubstr("MoeLayer gate_up: the bias of a weight [2, 32, 64] is f32[2, 16]"));
  }
  options = MoeOptions{{Kind::kSwiglu}};
  options.down_bias = ConstTensorView(bias.data(), DType::kF32, {1, 64});
  EXPECT_THAT(refusal(gate_up, down, options), HasSubstr("MoeLayer down: the bias"));
}

TEST(MoeLayer, RefusesOperandsInWords) {
  const auto layer = MoeLayer::Create(test::RandomWeight(schemes::kMxfp4, 2, 32, 64, 1), test::RandomWeight(schemes::kMxfp4, 2, 64, 16, 2),
                                      {{Kind::kSwiglu}});
  ASSERT_TRUE(layer);
  Numbers x(test::Gaussian(2 * 64, 3), DType::kBF16), y(2 * 64, DType::kF32);
  Call call = RandomCall(2, 2, 2, 4, false);
  Workspace workspace;
  ASSERT_TRUE(workspace.Reserve(layer->WorkspaceBytes(2, 2)).ok());
  ExecContext ctx{workspace, 2};
  const auto refusal = [&](ConstTensorView input, const Routing& routing, TensorView output) {
    return std::string(layer->Forward(input, routing, output, ctx).message());
  };
  EXPECT_EQ(refusal(x.View(2, 64), call.View(), y.View(2, 64)), "");
  EXPECT_THAT(refusal(x.View(2, 60), call.View(), y.View(2, 64)), HasSubstr("x is bf16[2, 60] and y is f32[2, 64]; give both as [T, 64]"));
  EXPECT_THAT(refusal(x.View(1, 64), call.View(), y.View(1, 64)), HasSubstr("routing of 1 tokens is ids i32[2, 2]"));
  EXPECT_THAT(refusal(y.View(2, 64), call.View(), y.View(2, 64)), HasSubstr("created for BF16 activations"));
  EXPECT_THAT(refusal(ConstTensorView(nullptr, DType::kBF16, {2, 64}), call.View(), y.View(2, 64)), HasSubstr("has no memory"));
  TensorView columns = y.View(2, 64);
  columns.set_strides(std::vector<int64_t>{1, 2});
  EXPECT_THAT(refusal(x.View(2, 64), call.View(), columns), HasSubstr("y has column stride 2"));
  call.ids[3] = 2;
  EXPECT_THAT(refusal(x.View(2, 64), call.View(), y.View(2, 64)), HasSubstr("slot 1 of token 1 goes to expert 2; give 0..1, or -1"));
  call.ids[3] = -2;
  EXPECT_THAT(refusal(x.View(2, 64), call.View(), y.View(2, 64)), HasSubstr("goes to expert -2"));
  call.ids[3] = 0;
  ctx.threads = 0;
  EXPECT_THAT(refusal(x.View(2, 64), call.View(), y.View(2, 64)), HasSubstr("0 threads"));
  Workspace small;
  ASSERT_TRUE(small.Reserve(128).ok());
  ExecContext little{small, 2};
  EXPECT_THAT(std::string(layer->Forward(x.View(2, 64), call.View(), y.View(2, 64), little).message()),
              HasSubstr(std::to_string(layer->WorkspaceBytes(2, 2))));
  EXPECT_THAT(std::string(MoeLayer().Forward({}, {}, {}, ctx).message()), HasSubstr("make it with MoeLayer::Create"));
}

TEST(MoeLayer, InsistingOnAKernelHoldsForBothMatrices) {
  MoeOptions options{{Kind::kSwiglu}};
  options.kernel = "w4a32_linear_scalar";
  const auto layer =
      MoeLayer::Create(test::RandomWeight(schemes::kMxfp4, 2, 32, 64, 1), test::RandomWeight(schemes::kMxfp4, 2, 64, 16, 2), options);
  ASSERT_TRUE(layer) << layer.status().message();
  EXPECT_EQ(layer->gate_up().kernel, "w4a32_linear_scalar");
  EXPECT_EQ(layer->down().kernel, "w4a32_linear_scalar");
}

}  // namespace
}  // namespace billfish
