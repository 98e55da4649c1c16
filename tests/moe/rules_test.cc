// Activation::Validate and RouterRule::Validate: no silent default.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "billfish/moe.h"

namespace billfish {
namespace {

using testing::HasSubstr;
using Kind = Activation::Kind;

std::string Refusal(const Activation& activation) { return std::string(activation.Validate().message()); }

TEST(ActivationRule, AcceptsExactlyTheFieldsTheKindReads) {
  EXPECT_TRUE(Activation{Kind::kSwiglu}.Validate().ok());
  EXPECT_TRUE(Activation{Kind::kGegluTanh}.Validate().ok());
  EXPECT_TRUE(Activation{Kind::kSilu}.Validate().ok());
  EXPECT_TRUE(Activation{Kind::kRelu2}.Validate().ok());
  EXPECT_TRUE((Activation{Kind::kSwigluClamped, 10.0f}.Validate().ok()));
  EXPECT_TRUE((Activation{Kind::kSwigluOai, 7.0f, 1.702f, 1.0f}.Validate().ok()));
  EXPECT_TRUE((Activation{Kind::kSwigluOai, 7.0f, 1.702f, 0.0f}.Validate().ok()));
}

TEST(ActivationRule, NamesTheMissingField) {
  EXPECT_THAT(Refusal({Kind::kSwigluClamped}), HasSubstr("clamped swiglu needs limit > 0 and it is 0"));
  EXPECT_THAT(Refusal({Kind::kSwigluOai, 0, 1.702f, 1}), HasSubstr("gpt-oss swiglu needs limit > 0"));
  EXPECT_THAT(Refusal({Kind::kSwigluOai, 7, 0, 1}), HasSubstr("gpt-oss swiglu needs alpha > 0"));
  EXPECT_THAT(Refusal({Kind::kSwigluOai, 7, 1.702f, NAN}), HasSubstr("needs a finite beta"));
  EXPECT_THAT(Refusal({Kind::kSwigluClamped, INFINITY}), HasSubstr("limit > 0 and it is inf"));
}

TEST(ActivationRule, NamesTheMeaninglessField) {
  EXPECT_THAT(Refusal({Kind::kSwiglu, 7}), HasSubstr("swiglu has no limit and it is 7"));
  EXPECT_THAT(Refusal({Kind::kGegluTanh, 0, 1}), HasSubstr("tanh geglu has no alpha"));
  EXPECT_THAT(Refusal({Kind::kSwigluClamped, 7, 0, 1}), HasSubstr("clamped swiglu has no beta"));
  EXPECT_THAT(Refusal({Kind::kSilu, 1}), HasSubstr("silu has no limit"));
  EXPECT_THAT(Refusal({Kind::kRelu2, 0, 0, 1}), HasSubstr("relu2 has no beta"));
  EXPECT_THAT(Refusal({static_cast<Kind>(99)}), HasSubstr("99 is no kind of activation"));
}

template <class Change>
std::string RuleRefusal(Change change) {
  RouterRule rule{RouterRule::Score::kSigmoid, 8, 2};
  change(rule);
  return std::string(rule.Validate().message());
}

TEST(RouterRuleCheck, AcceptsASoundRule) {
  EXPECT_EQ(RuleRefusal([](RouterRule&) {}), "");
  EXPECT_EQ(RuleRefusal([](RouterRule& r) { r.hash_table = {0, 7, 3, 4}; }), "");
  EXPECT_EQ(RuleRefusal([](RouterRule& r) { r.n_group = 4, r.topk_group = 2, r.correction.assign(8, 0.5f); }), "");
}

TEST(RouterRuleCheck, NamesWhatIsWrong) {
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.E = 0; }), HasSubstr("E = 0 experts"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.top_k = 9; }), HasSubstr("top_k = 9 of 8 experts; give 1..8"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.top_k = 0; }), HasSubstr("top_k = 0"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.routed_scaling = NAN; }), HasSubstr("routed_scaling is nan"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.correction = {1, 2}; }), HasSubstr("the correction has 2 entries for 8 experts"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.correction.assign(8, INFINITY); }), HasSubstr("correction of expert 0 is inf"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.n_group = 3; }), HasSubstr("n_group = 3 does not cut 8 experts"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.n_group = 4, r.topk_group = 5; }), HasSubstr("topk_group = 5 of 4 groups"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.n_group = 4, r.topk_group = 1, r.top_k = 3; }),
              HasSubstr("top_k = 3 experts cannot come from"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.hash_table = {1, 2, 3}; }), HasSubstr("hash table has 3 entries; give top_k = 2"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.hash_table = {1, 2, 3, 8}; }), HasSubstr("sends token id 1 to expert 8; experts are 0..7"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.hash_table = {1, 2}, r.n_group = 2; }), HasSubstr("give n_group = 1"));
  EXPECT_THAT(RuleRefusal([](RouterRule& r) { r.score = static_cast<RouterRule::Score>(9); }), HasSubstr("9 is no kind of router score"));
}

}  // namespace
}  // namespace billfish
