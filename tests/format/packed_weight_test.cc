// PackedWeight::FromParts: what it takes and what it refuses, in which words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "billfish/weight.h"
#include "support/random_tensor.h"

namespace billfish {
namespace {

using testing::HasSubstr;

std::vector<std::byte> Filled(size_t count, int value) { return std::vector<std::byte>(count, static_cast<std::byte>(value)); }

// MXFP4 [1, 2, 64]: codes 2 x 32 bytes, scales 2 x 2.
WeightParts SmallMxfp4() {
  WeightParts parts;
  parts.codes = Bytes::Own(Filled(64, 0x21));
  parts.scales = Bytes::Own(Filled(4, 127));
  return parts;
}

void ExpectRefusal(const Result<PackedWeight>& result, ErrorCode code, const char* text) {
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), code);
  EXPECT_THAT(std::string(result.error().message()), HasSubstr(text));
}

TEST(PackedWeight, TakesPartsOfTheRightSizes) {
  const auto weight = PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, SmallMxfp4());
  ASSERT_TRUE(weight);
  EXPECT_EQ(weight->groups(), 2);
  EXPECT_EQ(weight->scale_rows(), 2);
  EXPECT_EQ(weight->row_bytes(), 32);
  EXPECT_EQ(weight->bytes(), 68U);
}

TEST(PackedWeight, RefusesDimensionsBelowOneAndProductsThatOverflow) {
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 0, 2, 64, {}), ErrorCode::kInvalidArgument, "E = 0, N = 2, K = 64");
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, -2, 64, {}), ErrorCode::kInvalidArgument, "at least 1");
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, int64_t{1} << 40, int64_t{1} << 40, 64, {}), ErrorCode::kInvalidArgument,
                "63-bit");
  ExpectRefusal(PackedWeight::FromParts(schemes::kF32, 1, 1, INT64_MAX, {}), ErrorCode::kInvalidArgument, "63-bit");
}

TEST(PackedWeight, NamesTheArrayThatHasTheWrongSize) {
  WeightParts parts = SmallMxfp4();
  parts.codes = Bytes::Own(Filled(63, 0));
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, parts), ErrorCode::kShapeMismatch,
                "codes of a mxfp4 weight [1, 2, 64] must hold 64 bytes; 63 were given");
  parts = SmallMxfp4();
  parts.scales = {};
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, parts), ErrorCode::kShapeMismatch, "scales of a mxfp4");
  parts = SmallMxfp4();
  parts.zeros = Bytes::Own(Filled(4, 8));
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, parts), ErrorCode::kShapeMismatch, "zeros of a mxfp4");
  parts = SmallMxfp4();
  parts.row_scale = {1.0f};
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, parts), ErrorCode::kShapeMismatch, "row_scale of a mxfp4");
}

TEST(PackedWeight, RefusesAPermThatIsNoPermutation) {
  WeightParts parts = SmallMxfp4();
  parts.perm.assign(63, 0);
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, parts), ErrorCode::kShapeMismatch, "1 x 64 numbers; 63 were given");
  parts.perm.resize(64);
  for (int i = 0; i < 64; ++i) parts.perm[static_cast<size_t>(i)] = i;
  EXPECT_TRUE(PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, parts));
  parts.perm[5] = 6;
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, parts), ErrorCode::kShapeMismatch, "entry 6 is 6, which is there twice");
  parts.perm[5] = 64;
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, parts), ErrorCode::kShapeMismatch,
                "entry 5 is 64, which is out of range");
}

TEST(PackedWeight, ReportsTheFirstNanScale) {
  WeightParts parts = SmallMxfp4();
  std::vector<std::byte> scales = Filled(4, 127);
  scales[3] = std::byte{255};
  parts.scales = Bytes::Own(scales);
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, 2, 64, parts), ErrorCode::kCorruptFile,
                "F8_E8M0 scale of expert 0, row block 1, group 1 is byte 0xFF (NaN)");

  WeightParts nvfp4;
  nvfp4.codes = Bytes::Own(Filled(16, 0));
  nvfp4.row_scale = {1, 1};
  for (int nan : {0x7F, 0xFF}) {
    scales = Filled(2, 0x38);
    scales[0] = static_cast<std::byte>(nan);
    nvfp4.scales = Bytes::Own(scales);
    ExpectRefusal(PackedWeight::FromParts(schemes::kNvfp4, 1, 2, 16, nvfp4), ErrorCode::kCorruptFile,
                  "F8_E4M3 scale of expert 0, row block 0");
  }
  nvfp4.scales = Bytes::Own(Filled(2, 0x38));
  EXPECT_TRUE(PackedWeight::FromParts(schemes::kNvfp4, 1, 2, 16, nvfp4));
  nvfp4.row_scale[1] = NAN;
  ExpectRefusal(PackedWeight::FromParts(schemes::kNvfp4, 1, 2, 16, nvfp4), ErrorCode::kCorruptFile, "row scale of expert 0, row 1 is nan");

  WeightParts fp8;
  fp8.codes = Bytes::Own(Filled(4, 0x38));
  fp8.scales = Bytes::Own(std::vector<float>{INFINITY});
  ExpectRefusal(PackedWeight::FromParts(schemes::kFp8Tensor, 1, 2, 2, fp8), ErrorCode::kCorruptFile, "is inf; a scale must be a finite");
}

TEST(PackedWeight, ReportsNanCodesAndZeroPointsAbove16) {
  WeightParts fp8;
  std::vector<std::byte> codes = Filled(6, 0x38);
  codes[4] = std::byte{0xFF};
  fp8.codes = Bytes::Own(codes);
  fp8.scales = Bytes::Own(std::vector<float>{1.0f});
  ExpectRefusal(PackedWeight::FromParts(schemes::kFp8Tensor, 1, 2, 3, fp8), ErrorCode::kCorruptFile, "row 1, k 1 is 0xFF (NaN)");

  WeightParts int4;
  int4.codes = Bytes::Own(Filled(16, 0));
  int4.scales = Bytes::Own(Filled(2, 0));
  int4.zeros = Bytes::Own(Filled(1, 16));
  const QuantScheme asym = schemes::Int4(32, false);
  EXPECT_TRUE(PackedWeight::FromParts(asym, 1, 1, 32, int4));
  int4.zeros = Bytes::Own(Filled(1, 17));
  ExpectRefusal(PackedWeight::FromParts(asym, 1, 1, 32, int4), ErrorCode::kCorruptFile,
                "zero point of expert 0, row block 0, group 0 is 17");
}

TEST(PackedWeight, RefusesPaddingNibblesThatAreNotZero) {
  WeightParts parts;
  parts.codes = Bytes::Own(Filled(2, 0x21));
  parts.scales = Bytes::Own(Filled(1, 127));
  ExpectRefusal(PackedWeight::FromParts(schemes::kMxfp4, 1, 1, 3, parts), ErrorCode::kCorruptFile, "row 0 is 2; K = 3 is odd");
}

TEST(PackedWeight, RefusesSchemesThatMeanNothing) {
  const auto refuses = [](QuantScheme scheme, const char* text) {
    ExpectRefusal(PackedWeight::FromParts(scheme, 1, 1, 32, {}), ErrorCode::kInvalidArgument, text);
  };
  refuses({CodeBook::kE2M1, 32, 1, DType::kI32, ZeroPoint::kNone, false}, "I32 scales");
  refuses({CodeBook::kE2M1, 32, 1, DType::kF8E8M0, ZeroPoint::kPerGroup, false}, "a zero point belongs to int4");
  refuses({CodeBook::kE2M1, -1, 1, DType::kF8E8M0, ZeroPoint::kNone, false}, "group is -1");
  refuses({CodeBook::kE2M1, 32, -1, DType::kF8E8M0, ZeroPoint::kNone, false}, "group_rows is -1");
  refuses({CodeBook::kBF16, 0, 1, DType::kF32, ZeroPoint::kNone, true}, "have no row scale");
  refuses({static_cast<CodeBook>(9), 0, 1, DType::kF32, ZeroPoint::kNone, false}, "9 is no code book");
  refuses({CodeBook::kInt4, 0, 1, DType::kF32, static_cast<ZeroPoint>(7), false}, "7 is no kind of zero point");
}

TEST(PackedWeight, SixteenBitSchemesIgnoreTheFieldsAboutScales) {
  WeightParts parts;
  parts.codes = Bytes::Own(Filled(8, 0));
  const auto weight = PackedWeight::FromParts({CodeBook::kBF16, 77, 5, DType::kI8, ZeroPoint::kNone, false}, 1, 2, 2, parts);
  ASSERT_TRUE(weight);
  EXPECT_EQ(weight->scheme(), schemes::kBf16);
}

TEST(PackedWeight, ReadsPartsThatAreNotAligned) {
  const PackedWeight weight = test::RandomWeight(schemes::Int4(32, true), 1, 3, 64, 1);
  const auto shifted = [](const Bytes& bytes) {
    std::vector<std::byte> copy(1);
    copy.insert(copy.end(), bytes.data(), bytes.data() + bytes.size());
    const Bytes owned = Bytes::Own(copy);
    return owned.Slice(1, bytes.size());
  };
  WeightParts parts = weight.parts();
  parts.codes = shifted(parts.codes);
  parts.scales = shifted(parts.scales);
  const auto unaligned = PackedWeight::FromParts(weight.scheme(), 1, 3, 64, parts);
  ASSERT_TRUE(unaligned);
  std::vector<float> a(192), b(192);
  ASSERT_TRUE(weight.Dequantize(TensorView(a.data(), DType::kF32, {3, 64})).ok());
  ASSERT_TRUE(unaligned->Dequantize(TensorView(b.data(), DType::kF32, {3, 64})).ok());
  EXPECT_EQ(a, b);
}

}  // namespace
}  // namespace billfish
