// The checker must fail where a kernel would be wrong: a tolerance that a factor of two passes is worth nothing.
#include <gtest/gtest.h>

#include "support/linear_problem.h"

namespace billfish::test {
namespace {

constexpr int64_t kN = 70, kK = 256, kM = 3;

struct Case {
  PackedWeight weight = RandomWeight(schemes::Int4(32, true), 1, kN, kK, 21);
  std::vector<float> x = RoundedToBF16(Gaussian(kM * kK, 22));
  Expected expected = Multiply(weight, x, {0, kM}, {}, {});
};

// The weight with the scales of [first, last) doubled.
PackedWeight WithDoubledScales(const PackedWeight& weight, size_t first, size_t last) {
  WeightParts parts = weight.parts();
  std::vector<uint16_t> scales(parts.scales.size() / 2);
  std::memcpy(scales.data(), parts.scales.data(), parts.scales.size());
  for (size_t i = first; i < last; ++i) scales[i] = BF16FromF32(2 * F32FromBF16(scales[i]));
  parts.scales = Bytes::Own(scales);
  return *PackedWeight::FromParts(weight.scheme(), 1, kN, kK, parts);
}

bool Passes(const Case& known, const PackedWeight& weight, DType y_type) {
  const Expected found = Multiply(weight, known.x, {0, kM}, {}, {});
  return static_cast<bool>(NumericChecker(known.expected, BoundsFor(y_type), "test").Check([&](int64_t r, int64_t c) {
    const auto value = static_cast<float>(found.values[static_cast<size_t>(r * kN + c)]);
    return static_cast<double>(y_type == DType::kBF16 ? F32FromBF16(BF16FromF32(value)) : value);
  }));
}

TEST(NumericChecker, AcceptsTheRoundedTruth) {
  const Case known;
  EXPECT_TRUE(Passes(known, known.weight, DType::kF32));
  EXPECT_TRUE(Passes(known, known.weight, DType::kBF16));
}

TEST(NumericChecker, AnySingleScaleDoubledFails) {
  const Case known;
  for (size_t i = 0; i < kN * kK / 32; ++i) {
    const PackedWeight wrong = WithDoubledScales(known.weight, i, i + 1);
    EXPECT_FALSE(Passes(known, wrong, DType::kF32)) << "scale " << i;
    EXPECT_FALSE(Passes(known, wrong, DType::kBF16)) << "scale " << i;
  }
}

TEST(NumericChecker, ARowOrEverythingDoubledFails) {
  const Case known;
  EXPECT_FALSE(Passes(known, WithDoubledScales(known.weight, 8, 16), DType::kBF16));
  EXPECT_FALSE(Passes(known, WithDoubledScales(known.weight, 0, kN * kK / 32), DType::kBF16));
}

TEST(NumericChecker, NamesTheWorstElementAndTheKernel) {
  const Case known;
  const auto result = NumericChecker(known.expected, Bounds::ExactF32(), "w4_test").Check([&](int64_t r, int64_t c) {
    return known.expected.values[static_cast<size_t>(r * kN + c)] + (r == 2 && c == 5 ? 1.0 : 0.0);
  });
  EXPECT_FALSE(result);
  EXPECT_NE(std::string(result.message()).find("w4_test: worst element at row 2, col 5"), std::string::npos) << result.message();
}

TEST(NumericChecker, ANanOrATileOfZerosFails) {
  const Case known;
  const NumericChecker checker(known.expected, Bounds::ExactBF16(), "test");
  const auto value = [&](int64_t r, int64_t c) { return known.expected.values[static_cast<size_t>(r * kN + c)]; };
  EXPECT_FALSE(checker.Check([&](int64_t r, int64_t c) { return r == 0 && c == 0 ? NAN : value(r, c); }));
  EXPECT_FALSE(checker.Check([&](int64_t r, int64_t c) { return c >= 64 ? 0.0 : value(r, c); }));
}

TEST(NumericChecker, SmallBiasThatEveryElementSharesFailsByNorm) {
  const Case known;
  const NumericChecker checker(known.expected, Bounds::ExactF32(), "test");
  // Within each element's tolerance, but all in one direction: the norms catch it.
  EXPECT_FALSE(checker.Check([&](int64_t r, int64_t c) {
    const auto i = static_cast<size_t>(r * kN + c);
    return known.expected.values[i] + 4e-6 * known.expected.magnitude[i];
  }));
}

}  // namespace
}  // namespace billfish::test
