#include "reference/route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace billfish::reference {
namespace {

using Score = RouterRule::Score;
using testing::ElementsAre;

constexpr double kLogits[] = {0.5, 2.0, -1.0, 2.0, 1.0, 0.0};

TEST(RouteToken, SoftmaxBeforeTheChoiceKeepsTheShareOfAllExperts) {
  const Route route = RouteToken(kLogits, RouterRule{Score::kSoftmax, 6, 2}, 0);
  EXPECT_THAT(route.ids, ElementsAre(1, 3));
  double sum = 0;
  for (double logit : kLogits) sum += std::exp(logit);
  EXPECT_NEAR(route.weights[0], std::exp(2.0) / sum, 1e-15);
}

TEST(RouteToken, SoftmaxAfterTheChoiceEqualsRenormalisedSoftmax) {
  RouterRule before{Score::kSoftmax, 6, 3};
  before.renormalize = true;
  const Route a = RouteToken(kLogits, before, 0), b = RouteToken(kLogits, RouterRule{Score::kTopKSoftmax, 6, 3}, 0);
  EXPECT_EQ(a.ids, b.ids);
  for (size_t j = 0; j < 3; ++j) EXPECT_NEAR(a.weights[j], b.weights[j], 1e-15);
  EXPECT_NEAR(b.weights[0] + b.weights[1] + b.weights[2], 1, 1e-15);
}

TEST(RouteToken, CorrectionMovesTheChoiceAndNotTheWeights) {
  RouterRule rule{Score::kSigmoid, 6, 2};
  rule.correction = {0, 0, 5, 0, 0, 0};
  const Route route = RouteToken(kLogits, rule, 0);
  EXPECT_THAT(route.ids, ElementsAre(2, 1));
  EXPECT_NEAR(route.weights[0], 1 / (1 + std::exp(1.0)), 1e-15);
}

TEST(RouteToken, GroupsAreJudgedByTheirTwoBest) {
  // Groups {0,1}, {2,3}, {4,5}: sums 2.5, 1.0, 1.0 of logits; only one group stays.
  RouterRule rule{Score::kSigmoid, 6, 2};
  rule.n_group = 3;
  rule.topk_group = 1;
  EXPECT_THAT(RouteToken(kLogits, rule, 0).ids, ElementsAre(1, 0));
  rule.topk_group = 3;
  EXPECT_THAT(RouteToken(kLogits, rule, 0).ids, ElementsAre(1, 3));
}

TEST(RouteToken, ScalesAndNormalisesOnce) {
  RouterRule rule{Score::kSqrtSoftplus, 6, 2};
  rule.renormalize = true;
  rule.routed_scaling = 1.5f;
  const Route route = RouteToken(kLogits, rule, 0);
  EXPECT_NEAR(route.weights[0], 0.75, 1e-12);
  rule.renormalize = false;
  EXPECT_NEAR(RouteToken(kLogits, rule, 0).weights[0], 1.5 * std::sqrt(std::log(1 + std::exp(2.0))), 1e-12);
}

TEST(RouteToken, HashTableGivesTheExpertsAndTheScoresTheWeights) {
  RouterRule rule{Score::kSqrtSoftplus, 6, 2};
  rule.hash_table = {0, 1, 5, 2};
  const Route route = RouteToken(kLogits, rule, 1);
  EXPECT_THAT(route.ids, ElementsAre(5, 2));
  EXPECT_NEAR(route.weights[0], std::sqrt(std::log(2.0)), 1e-12);
}

}  // namespace
}  // namespace billfish::reference
