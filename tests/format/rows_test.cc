// SelectRows, Expert, ConcatRows and StackExperts move numbers and never change them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "billfish/weight.h"
#include "support/random_tensor.h"
#include "support/scheme_test.h"
#include "support/weight_numbers.h"

namespace billfish {
namespace {

using test::DequantizedF32;
using testing::HasSubstr;

std::vector<float> Joined(std::initializer_list<std::vector<float>> parts) {
  std::vector<float> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

class EveryScheme : public test::SchemeTest {};
INSTANTIATE_TEST_SUITE_P(Schemes, EveryScheme, test::EverySchemeName(), test::SchemeTestName);

TEST_P(EveryScheme, SelectedRowsKeepTheirNumbers) {
  const PackedWeight weight = test::WithRandomPerm(test::RandomWeight(scheme(), 2, 5, 45, 11), 12);
  const std::vector<int64_t> order = {4, 0, 2};
  const auto selected = weight.SelectRows(order);
  ASSERT_TRUE(selected) << selected.status().message();
  EXPECT_EQ(selected->scheme().group_rows, 1);
  const std::vector<float> all = DequantizedF32(weight), some = DequantizedF32(*selected);
  for (size_t e = 0; e < 2; ++e) {
    for (size_t i = 0; i < order.size(); ++i) {
      for (size_t k = 0; k < 45; ++k) EXPECT_EQ(some[(e * 3 + i) * 45 + k], all[(e * 5 + static_cast<size_t>(order[i])) * 45 + k]);
    }
  }
}

TEST_P(EveryScheme, StackingTheExpertsOfAStackGivesItBack) {
  const PackedWeight stack = test::WithRandomPerm(test::RandomWeight(scheme(), 3, 4, 33, 13), 14);
  std::vector<PackedWeight> experts;
  for (int64_t e = 0; e < 3; ++e) experts.push_back(*stack.Expert(e));
  const auto again = PackedWeight::StackExperts(experts);
  ASSERT_TRUE(again) << again.status().message();
  EXPECT_EQ(again->scheme(), stack.scheme());
  EXPECT_EQ(DequantizedF32(*again), DequantizedF32(stack));
  EXPECT_EQ(again->bytes(), stack.bytes());
}

TEST_P(EveryScheme, ConcatenatedRowsKeepTheirNumbers) {
  const PackedWeight a = test::RandomWeight(scheme(), 1, 3, 40, 15), b = test::RandomWeight(scheme(), 1, 6, 40, 16);
  const std::vector<PackedWeight> parts = {a, b};
  const auto joined = PackedWeight::ConcatRows(parts);
  ASSERT_TRUE(joined) << joined.status().message();
  EXPECT_EQ(joined->N(), 9);
  EXPECT_EQ(DequantizedF32(*joined), Joined({DequantizedF32(a), DequantizedF32(b)}));
}

TEST(ConcatRows, KeepsBlocksThatLineUp) {
  QuantScheme scheme = schemes::kFp8Block128;
  scheme.group = scheme.group_rows = 4;
  const PackedWeight a = test::RandomWeight(scheme, 1, 8, 12, 1), b = test::RandomWeight(scheme, 1, 6, 12, 2);
  const auto kept = PackedWeight::ConcatRows(std::vector<PackedWeight>{a, b});
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->scheme().group_rows, 4);
  EXPECT_EQ(DequantizedF32(*kept), Joined({DequantizedF32(a), DequantizedF32(b)}));
  const auto repeated = PackedWeight::ConcatRows(std::vector<PackedWeight>{b, a});
  ASSERT_TRUE(repeated);
  EXPECT_EQ(repeated->scheme().group_rows, 1);
  EXPECT_EQ(DequantizedF32(*repeated), Joined({DequantizedF32(b), DequantizedF32(a)}));
}

TEST(ConcatRows, FillsInRowScalesAndZeroPoints) {
  const PackedWeight sym = test::RandomWeight(schemes::Int4(32, true), 1, 2, 64, 3),
                     asym = test::RandomWeight(schemes::Int4(32, false), 1, 2, 64, 4);
  const auto joined = PackedWeight::ConcatRows(std::vector<PackedWeight>{sym, asym});
  ASSERT_TRUE(joined);
  EXPECT_EQ(joined->scheme().zero, ZeroPoint::kPerGroup);
  EXPECT_EQ(DequantizedF32(*joined), Joined({DequantizedF32(sym), DequantizedF32(asym)}));

  QuantScheme plain = schemes::kNvfp4;
  plain.row_scale = false;
  const PackedWeight with = test::RandomWeight(schemes::kNvfp4, 1, 2, 64, 5), without = test::RandomWeight(plain, 1, 3, 64, 6);
  const auto both = PackedWeight::ConcatRows(std::vector<PackedWeight>{without, with});
  ASSERT_TRUE(both);
  EXPECT_TRUE(both->scheme().row_scale);
  EXPECT_EQ(DequantizedF32(*both), Joined({DequantizedF32(without), DequantizedF32(with)}));
}

TEST(ConcatRows, DifferentGlobalScalesOfGateAndUpStayDifferent) {
  PackedWeight gate = test::RandomWeight(schemes::kNvfp4, 1, 2, 32, 7), up = test::RandomWeight(schemes::kNvfp4, 1, 2, 32, 8);
  WeightParts parts = up.parts();
  for (float& scale : parts.row_scale) scale *= 10;
  up = *PackedWeight::FromParts(schemes::kNvfp4, 1, 2, 32, parts);
  const auto joined = PackedWeight::ConcatRows(std::vector<PackedWeight>{gate, up});
  ASSERT_TRUE(joined);
  EXPECT_EQ(DequantizedF32(*joined), Joined({DequantizedF32(gate), DequantizedF32(up)}));
}

TEST(ConcatRows, WidensScalesOfDifferentTypes) {
  const PackedWeight a = test::RandomWeight(schemes::Int4(32, true, DType::kBF16), 1, 2, 64, 9);
  const PackedWeight b = test::RandomWeight(schemes::Int4(32, true, DType::kF16), 1, 2, 64, 10);
  const auto joined = PackedWeight::ConcatRows(std::vector<PackedWeight>{a, b});
  ASSERT_TRUE(joined);
  EXPECT_EQ(joined->scheme().scale, DType::kF32);
  EXPECT_EQ(DequantizedF32(*joined), Joined({DequantizedF32(a), DequantizedF32(b)}));
}

TEST(ConcatRows, SaysWhyWeightsCannotBeJoined) {
  const PackedWeight a = test::RandomWeight(schemes::kMxfp4, 1, 2, 64, 1);
  const auto refusal = [&](const PackedWeight& other) {
    return std::string(PackedWeight::ConcatRows(std::vector<PackedWeight>{a, other}).status().message());
  };
  EXPECT_THAT(refusal(test::RandomWeight(schemes::kNvfp4, 1, 2, 64, 1)), HasSubstr("their schemes are mxfp4 and nvfp4"));
  EXPECT_THAT(refusal(test::RandomWeight(schemes::kMxfp4, 1, 2, 96, 1)), HasSubstr("their K are 64 and 96"));
  EXPECT_THAT(refusal(test::WithRandomPerm(a, 2)), HasSubstr("act-order"));
  EXPECT_THAT(refusal(test::RandomWeight(schemes::kMxfp4, 2, 2, 64, 1)),
              HasSubstr("weight 1 has 2 experts; only single weights can be concatenated"));
  EXPECT_THAT(std::string(PackedWeight::ConcatRows({}).status().message()), HasSubstr("no weights to be concatenated"));
}

TEST(StackExperts, FillsInAMissingOrderAndSaysWhyItCannotStack) {
  const PackedWeight a = test::RandomWeight(schemes::kMxfp4, 1, 2, 64, 1);
  const PackedWeight b = test::WithRandomPerm(test::RandomWeight(schemes::kMxfp4, 1, 2, 64, 2), 3);
  const auto stack = PackedWeight::StackExperts(std::vector<PackedWeight>{a, b});
  ASSERT_TRUE(stack);
  EXPECT_EQ(DequantizedF32(*stack), Joined({DequantizedF32(a), DequantizedF32(b)}));
  const auto refused = PackedWeight::StackExperts(std::vector<PackedWeight>{a, test::RandomWeight(schemes::kMxfp4, 1, 3, 64, 1)});
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("their N are 2 and 3"));
}

TEST(SelectRows, RefusesRowsThatAreNotThere) {
  const PackedWeight weight = test::RandomWeight(schemes::kMxfp4, 1, 3, 32, 1);
  EXPECT_THAT(std::string(weight.SelectRows(std::vector<int64_t>{0, 3}).status().message()),
              HasSubstr("entry 1 is 3, which is out of range"));
  EXPECT_THAT(std::string(weight.SelectRows(std::vector<int64_t>{1, 1}).status().message()),
              HasSubstr("entry 1 is 1, which is there twice"));
}

TEST(Expert, SharesTheBytesOfTheStack) {
  const PackedWeight stack = test::RandomWeight(schemes::kNvfp4, 3, 2, 32, 1);
  const auto expert = stack.Expert(1);
  ASSERT_TRUE(expert);
  EXPECT_EQ(expert->parts().codes.data(), stack.parts().codes.data() + 32);
  EXPECT_THAT(std::string(stack.Expert(3).status().message()), HasSubstr("expert 3 was asked for; the weight has experts 0..2"));
}

}  // namespace
}  // namespace billfish
