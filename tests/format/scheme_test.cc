#include "billfish/scheme.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace billfish {
namespace {

using testing::HasSubstr;

TEST(Scheme, EveryListedNameGivesTheSchemeOfThatName) {
  for (std::string_view name : SchemeNames()) {
    const auto scheme = SchemeByName(name);
    ASSERT_TRUE(scheme) << name;
    EXPECT_EQ(scheme->Name(), name);
  }
  EXPECT_EQ(SchemeNames().size(), 16U);
}

TEST(Scheme, UnknownNameListsTheKnownOnes) {
  const auto scheme = SchemeByName("int3");
  ASSERT_FALSE(scheme);
  EXPECT_EQ(scheme.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(scheme.error().message()),
              testing::AllOf(HasSubstr("\"int3\""), HasSubstr("mxfp4, nvfp4"), HasSubstr("fp8-block128")));
}

TEST(Scheme, UnusualSchemesHaveTellingNames) {
  EXPECT_EQ((QuantScheme{CodeBook::kE4M3, 32, 32, DType::kF8E8M0, ZeroPoint::kNone, false}.Name()), "fp8-block32");
  EXPECT_EQ((QuantScheme{CodeBook::kE4M3, 64, 128, DType::kF32, ZeroPoint::kNone, false}.Name()), "fp8-block128x64");
  EXPECT_EQ((QuantScheme{CodeBook::kE2M1, 128, 1, DType::kF32, ZeroPoint::kNone, false}.Name()), "fp4-g128-f32");
  EXPECT_EQ((QuantScheme{CodeBook::kE2M1, 16, 1, DType::kF8E4M3, ZeroPoint::kNone, false}.Name()), "nvfp4-noglobal");
  EXPECT_EQ((QuantScheme{CodeBook::kInt4, 32, 1, DType::kBF16, ZeroPoint::kNone, true}.Name()), "int4-g32-rowscale");
}

TEST(Scheme, CodeBitsAreFourEightSixteenAndThirtyTwo) {
  EXPECT_EQ(CodeBits(CodeBook::kInt4), 4);
  EXPECT_EQ(CodeBits(CodeBook::kE2M1), 4);
  EXPECT_EQ(CodeBits(CodeBook::kE4M3), 8);
  EXPECT_EQ(CodeBits(CodeBook::kBF16), 16);
  EXPECT_EQ(CodeBits(CodeBook::kF16), 16);
  EXPECT_EQ(CodeBits(CodeBook::kF32), 32);
}

}  // namespace
}  // namespace billfish
