#include "reference/activation.h"

#include <gtest/gtest.h>

#include <cmath>

namespace billfish::reference {
namespace {

using Kind = Activation::Kind;

TEST(Activate, GptOssSwigluHasItsPublishedValues) {
  const Activation oai{Kind::kSwigluOai, 7.0f, 1.702f, 1.0f};
  EXPECT_NEAR(Activate(oai, 1, 2), 2.537387, 1e-6);
  EXPECT_NEAR(Activate(oai, 10, -9), -41.999719, 1e-5);
  EXPECT_NEAR(Activate(oai, -10, 0), -4.06e-7, 1e-9);
}

TEST(Activate, DeepSeekClampsTheGateFromAboveOnly) {
  const Activation clamped{Kind::kSwigluClamped, 10.0f};
  EXPECT_NEAR(Activate(clamped, 1, 2), 1.462117, 1e-6);
  EXPECT_NEAR(Activate(clamped, 12, -11), -99.995460, 1e-5);
  EXPECT_NEAR(Activate(clamped, -12, 1), -12 / (1 + std::exp(12.0)), 1e-12);
  EXPECT_EQ(Activate(clamped, 1, 50), Activate(clamped, 1, 10));
}

TEST(Activate, TheOtherKindsFollowTheirFormulas) {
  EXPECT_NEAR(Activate({Kind::kSwiglu}, 2, 3), 2 / (1 + std::exp(-2.0)) * 3, 1e-12);
  EXPECT_NEAR(Activate({Kind::kSilu}, -1, 1e9), -1 / (1 + std::exp(1.0)), 1e-12);
  EXPECT_EQ(Activate({Kind::kRelu2}, 3, 1e9), 9);
  EXPECT_EQ(Activate({Kind::kRelu2}, -3, 1e9), 0);
  // tanh GELU of 1, known to six digits
  EXPECT_NEAR(Activate({Kind::kGegluTanh}, 1, 1), 0.841192, 1e-6);
  EXPECT_NEAR(Activate({Kind::kGegluTanh}, -1, 2), -0.317616, 1e-6);
}

}  // namespace
}  // namespace billfish::reference
