// PackedWeight::Random: any scheme and shape, the size that its contract states, the same numbers on any number of threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "billfish/weight.h"

namespace billfish {
namespace {

using testing::HasSubstr;

std::vector<float> ValuesOf(const PackedWeight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.E() * weight.N() * weight.K()));
  const Status status = weight.Dequantize({values.data(), DType::kF32, {weight.E(), weight.N(), weight.K()}});
  EXPECT_TRUE(status.ok()) << status.message();
  return values;
}

TEST(RandomWeight, HasZeroMeanAndTheSizeThatKeepsProductsNearOne) {
  for (const std::string_view name : SchemeNames()) {
    for (const int64_t K : {int64_t{256}, int64_t{2880}}) {
      if (name == "fp8-block128" && K % 128 != 0) continue;
      const auto weight = PackedWeight::Random(*SchemeByName(name), 3, 128, K, 17);
      ASSERT_TRUE(weight) << name << ": " << weight.error().message();
      double sum = 0, squares = 0;
      const std::vector<float> values = ValuesOf(*weight);
      for (const float value : values) sum += value, squares += double{value} * value;
      const double rms = std::sqrt(squares / static_cast<double>(values.size())), expected = 1 / std::sqrt(static_cast<double>(K));
      EXPECT_GT(rms, 0.6 * expected) << name << " K " << K;
      EXPECT_LT(rms, 1.6 * expected) << name << " K " << K;
      EXPECT_LT(std::abs(sum / static_cast<double>(values.size())), 0.2 * expected) << name << " K " << K;
    }
  }
}

TEST(RandomWeight, DependsOnTheSeedAndNotOnThreads) {
  for (const char* name : {"mxfp4", "nvfp4", "int4-g32-asym", "fp8-channel", "bf16"}) {
    const QuantScheme scheme = *SchemeByName(name);
    const auto one = PackedWeight::Random(scheme, 2, 300, 160, 5, 1), three = PackedWeight::Random(scheme, 2, 300, 160, 5, 3),
               other = PackedWeight::Random(scheme, 2, 300, 160, 6, 1);
    ASSERT_TRUE(one && three && other) << name;
    EXPECT_EQ(ValuesOf(*one), ValuesOf(*three)) << name;
    EXPECT_NE(ValuesOf(*one), ValuesOf(*other)) << name;
  }
}

TEST(RandomWeight, PadsOddRowsWithZeros) {
  const auto weight = PackedWeight::Random(schemes::Int4(32, false), 2, 7, 45, 1);
  ASSERT_TRUE(weight) << weight.error().message();
  for (int64_t row = 1; row <= 14; ++row) EXPECT_LT(static_cast<int>(weight->parts().codes.data()[row * 23 - 1]), 16) << row;
}

TEST(RandomWeight, RefusesWhatFromPartsRefuses) {
  const auto empty = PackedWeight::Random(schemes::kMxfp4, 1, 0, 64, 1);
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code(), ErrorCode::kInvalidArgument);
  const auto huge = PackedWeight::Random(schemes::kBf16, int64_t{1} << 31, int64_t{1} << 31, int64_t{1} << 31, 1);
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code(), ErrorCode::kInvalidArgument);
  QuantScheme odd = schemes::kMxfp4;
  odd.group = -1;
  const auto meaningless = PackedWeight::Random(odd, 1, 8, 64, 1);
  ASSERT_FALSE(meaningless);
  EXPECT_THAT(std::string(meaningless.error().message()), HasSubstr("group"));
}

}  // namespace
}  // namespace billfish
