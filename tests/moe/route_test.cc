// RouteTopK against the fp64 definition, for every kind of score.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "billfish/moe.h"
#include "reference/route.h"
#include "support/random_tensor.h"

namespace billfish {
namespace {

using Score = RouterRule::Score;
using testing::ElementsAre;
using testing::HasSubstr;

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
  Status status;
};

Routed RunRoute(const RouterRule& rule, const std::vector<float>& logits, const std::vector<int32_t>& token_ids = {}, int threads = 2) {
  const int64_t T = static_cast<int64_t>(logits.size()) / rule.E;
  Routed routed{
      std::vector<int32_t>(static_cast<size_t>(T * rule.top_k), -7), std::vector<float>(static_cast<size_t>(T * rule.top_k), NAN), {}};
  Workspace workspace;
  EXPECT_TRUE(workspace.Reserve(RouteWorkspaceBytes(T, rule)).ok());
  ExecContext ctx{workspace, threads};
  routed.status = RouteTopK(
      ConstTensorView(logits.data(), DType::kF32, {T, rule.E}), rule, token_ids,
      {TensorView(routed.ids.data(), DType::kI32, {T, rule.top_k}), TensorView(routed.weights.data(), DType::kF32, {T, rule.top_k})}, ctx);
  return routed;
}

void CheckAgainstReference(const RouterRule& rule, int64_t T, uint64_t seed) {
  ASSERT_TRUE(rule.Validate().ok()) << rule.Validate().message();
  const std::vector<float> logits = test::Gaussian(static_cast<size_t>(T * rule.E), seed, 2.0f);
  std::vector<int32_t> token_ids;
  const int64_t vocab = static_cast<int64_t>(rule.hash_table.size()) / rule.top_k;
  for (int64_t t = 0; t < T && vocab > 0; ++t) token_ids.push_back(static_cast<int32_t>(t * 7 % vocab));
  const Routed routed = RunRoute(rule, logits, token_ids);
  ASSERT_TRUE(routed.status.ok()) << routed.status.message();
  for (int64_t t = 0; t < T; ++t) {
    const std::vector<double> row(logits.begin() + t * rule.E, logits.begin() + (t + 1) * rule.E);
    const reference::Route expected = reference::RouteToken(row, rule, token_ids.empty() ? 0 : token_ids[static_cast<size_t>(t)]);
    for (int64_t j = 0; j < rule.top_k; ++j) {
      const auto i = static_cast<size_t>(t * rule.top_k + j);
      ASSERT_EQ(routed.ids[i], expected.ids[static_cast<size_t>(j)]) << "token " << t << " slot " << j;
      ASSERT_NEAR(routed.weights[i], expected.weights[static_cast<size_t>(j)], 3e-6 * std::fabs(expected.weights[static_cast<size_t>(j)]));
    }
  }
  for (int threads : {1, 3, 8}) {
    const Routed again = RunRoute(rule, logits, token_ids, threads);
    EXPECT_EQ(again.ids, routed.ids);
    EXPECT_EQ(again.weights, routed.weights);
  }
}

TEST(RouteTopK, EqualsTheDefinitionForEveryScore) {
  uint64_t seed = 1;
  for (Score score : {Score::kSoftmax, Score::kTopKSoftmax, Score::kSigmoid, Score::kSqrtSoftplus}) {
    for (bool renormalize : {false, true}) {
      for (int64_t E : {1, 8, 128, 384}) {
        RouterRule rule{score, E, std::min<int64_t>(E, 1 + static_cast<int64_t>(seed % 8))};
        rule.renormalize = renormalize;
        rule.routed_scaling = seed % 2 == 0 ? 2.5f : 1.0f;
        CheckAgainstReference(rule, 65, ++seed);
        rule.correction = test::Gaussian(static_cast<size_t>(E), seed, 0.3f);
        CheckAgainstReference(rule, 65, ++seed);
      }
    }
  }
}

TEST(RouteTopK, EqualsTheDefinitionWithGroups) {
  RouterRule rule{Score::kSigmoid, 256, 8};
  rule.n_group = 8;
  rule.topk_group = 4;
  rule.renormalize = true;
  rule.routed_scaling = 2.5f;
  rule.correction = test::Gaussian(256, 1, 0.1f);
  CheckAgainstReference(rule, 200, 2);
  RouterRule single{Score::kSoftmax, 8, 2};  // one expert in each group
  single.n_group = 8;
  single.topk_group = 3;
  CheckAgainstReference(single, 50, 3);
}

TEST(RouteTopK, EqualsTheDefinitionWithAHashTable) {
  RouterRule rule{Score::kSqrtSoftplus, 16, 2};
  rule.renormalize = true;
  rule.routed_scaling = 1.5f;
  for (int32_t i = 0; i < 40; ++i) rule.hash_table.push_back(i * 5 % 16);
  CheckAgainstReference(rule, 30, 4);
}

TEST(RouteTopK, TiesGoToTheSmallerExpert) {
  const Routed routed = RunRoute(RouterRule{Score::kTopKSoftmax, 6, 3}, {1, 2, 2, 0, 2, 2});
  EXPECT_THAT(routed.ids, ElementsAre(1, 2, 4));
  RouterRule grouped{Score::kSigmoid, 6, 2};
  grouped.n_group = 3;
  grouped.topk_group = 1;
  EXPECT_THAT(RunRoute(grouped, {0, 1, 1, 0, 0, 1}).ids, ElementsAre(1, 0));
}

TEST(RouteTopK, ExtremeLogitsGiveFiniteWeights) {
  for (Score score : {Score::kSoftmax, Score::kTopKSoftmax, Score::kSigmoid, Score::kSqrtSoftplus}) {
    RouterRule rule{score, 4, 2};
    rule.renormalize = true;
    const Routed routed = RunRoute(rule, {1e30f, -1e30f, 200.0f, 1e30f, -1e30f, -2e30f, -1e30f, -1e30f});
    EXPECT_THAT(routed.ids, ElementsAre(0, 3, 0, 2));
    for (float weight : routed.weights) EXPECT_TRUE(std::isfinite(weight)) << static_cast<int>(score);
  }
}

TEST(RouteTopK, NotANumberStillGivesValidExperts) {
  const Routed routed = RunRoute(RouterRule{Score::kTopKSoftmax, 4, 2}, {NAN, NAN, NAN, NAN, 1, NAN, 3, 2});
  for (int32_t id : routed.ids) EXPECT_TRUE(id >= 0 && id < 4);
  EXPECT_NE(routed.ids[0], routed.ids[1]);
}

TEST(RouteTopK, RefusesWhatDoesNotFitInWords) {
  RouterRule rule{Score::kSoftmax, 4, 2};
  std::vector<float> logits(8);
  std::vector<int32_t> ids(4);
  std::vector<float> weights(4);
  Workspace workspace;
  ASSERT_TRUE(workspace.Reserve(RouteWorkspaceBytes(2, rule)).ok());
  ExecContext ctx{workspace, 1};
  const Routing out{TensorView(ids.data(), DType::kI32, {2, 2}), TensorView(weights.data(), DType::kF32, {2, 2})};
  const auto refusal = [&](ConstTensorView view, const Routing& to, std::span<const int32_t> tokens) {
    return std::string(RouteTopK(view, rule, tokens, to, ctx).message());
  };
  const ConstTensorView good(logits.data(), DType::kF32, {2, 4});
  EXPECT_EQ(refusal(good, out, {}), "");
  EXPECT_THAT(refusal(ConstTensorView(logits.data(), DType::kBF16, {2, 4}), out, {}), HasSubstr("give f32[T, 4]"));
  EXPECT_THAT(refusal(ConstTensorView(logits.data(), DType::kF32, {4, 2}), out, {}), HasSubstr("router logits are f32[4, 2]"));
  EXPECT_THAT(refusal(good, {TensorView(ids.data(), DType::kI32, {1, 2}), out.weights}, {}), HasSubstr("i32[2, 2] and f32[2, 2]"));
  rule.hash_table = {0, 1, 2, 3};
  EXPECT_THAT(refusal(good, out, {}), HasSubstr("got 0 token ids"));
  EXPECT_THAT(refusal(good, out, std::vector<int32_t>{0, 2}), HasSubstr("token 1 has id 2; the hash table has rows 0..1"));
  rule.top_k = 5;
  EXPECT_THAT(refusal(good, out, {}), HasSubstr("top_k = 5"));
  rule = RouterRule{Score::kSoftmax, 4, 2};
  Workspace none;
  ExecContext empty{none, 1};
  EXPECT_THAT(std::string(RouteTopK(good, rule, {}, out, empty).message()), HasSubstr("routing needs a workspace of"));
}

}  // namespace
}  // namespace billfish
