#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "billfish/weight.h"
#include "support/random_tensor.h"
#include "support/weight_numbers.h"

namespace billfish {
namespace {

using test::DequantizedF32;
using testing::HasSubstr;

PackedWeight Quantized(const std::vector<float>& w, int64_t N, int64_t K, const QuantScheme& scheme) {
  auto weight = PackedWeight::Quantize(ConstTensorView(w.data(), DType::kF32, {N, K}), scheme);
  EXPECT_TRUE(weight) << weight.status().message();
  return weight ? *weight : PackedWeight();
}

double RelativeError(const std::vector<float>& found, const std::vector<float>& wanted) {
  double error = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(static_cast<double>(found[i]) - wanted[i], 2);
    size += std::pow(static_cast<double>(wanted[i]), 2);
  }
  return std::sqrt(error / size);
}

// Relative error of Gaussian weights, measured with this code and rounded up a little: a worse search must fail.
struct Quality {
  const char* scheme;
  double at_most;
};
constexpr Quality kQualities[] = {{"mxfp4", 0.117},          {"nvfp4", 0.089},
                                  {"int4-g32", 0.090},       {"int4-g64", 0.101},
                                  {"int4-g128", 0.100},      {"int4-channel", 0.106},
                                  {"int4-g32-asym", 0.078},  {"int4-g64-asym", 0.092},
                                  {"int4-g128-asym", 0.096}, {"int4-channel-asym", 0.104},
                                  {"fp8-tensor", 0.027},     {"fp8-channel", 0.027},
                                  {"fp8-block128", 0.027},   {"bf16", 0.0018},
                                  {"f16", 0.00022},          {"f32", 0.0}};

TEST(Quantize, GaussianWeightsKeepTheExpectedAccuracy) {
  const int64_t N = 256, K = 512;
  const std::vector<float> w = test::Gaussian(static_cast<size_t>(N * K), 1, 0.02f);
  for (const Quality& quality : kQualities) {
    const double error = RelativeError(DequantizedF32(Quantized(w, N, K, *SchemeByName(quality.scheme))), w);
    EXPECT_LE(error, quality.at_most) << quality.scheme;
    EXPECT_GE(error, quality.at_most * 0.9) << quality.scheme << ": tighten the bound";
  }
}

TEST(Quantize, ValuesThatASchemeCanHoldComeBackExactly) {
  const int64_t N = 8, K = 128;
  for (std::string_view name : SchemeNames()) {
    const PackedWeight first = Quantized(test::Gaussian(static_cast<size_t>(N * K), 2), N, K, *SchemeByName(name));
    const std::vector<float> held = DequantizedF32(first);
    const std::vector<float> again = DequantizedF32(Quantized(held, N, K, *SchemeByName(name)));
    // Searches may settle on another representation, but never on a worse one than the exact; int4 groups that use only a part of the
    // code range can be re-scaled within rounding.
    EXPECT_LE(RelativeError(again, held), name.substr(0, 4) == "int4" ? 0.03 : name == "nvfp4" ? 0.01 : 1e-7) << name;
  }
}

TEST(Quantize, ResultDoesNotDependOnTheThreadCount) {
  const int64_t N = 37, K = 200;
  const std::vector<float> w = test::Gaussian(static_cast<size_t>(N * K), 3);
  for (std::string_view name : SchemeNames()) {
    std::vector<std::vector<float>> results;
    for (const char* threads : {"1", "3", "8"}) {
      setenv("BILLFISH_THREADS", threads, 1);
      results.push_back(DequantizedF32(Quantized(w, N, K, *SchemeByName(name))));
    }
    unsetenv("BILLFISH_THREADS");
    EXPECT_EQ(results[0], results[1]) << name;
    EXPECT_EQ(results[0], results[2]) << name;
  }
}

TEST(Quantize, Mxfp4TakesTheBetterOfTwoExponents) {
  // Largest weight 7: exponent 0 clips it to 6 (error 1), exponent 1 holds 8 or 6 (error 1) but makes the small ones coarser.
  std::vector<float> w(32, 0.5f);
  w[0] = 7.0f;
  EXPECT_EQ(Quantized(w, 1, 32, schemes::kMxfp4).parts().scales.data()[0], std::byte{127});
  // Nothing but sevens: both exponents are off by one, and the smaller wins the tie.
  EXPECT_EQ(Quantized(std::vector<float>(32, 7.0f), 1, 32, schemes::kMxfp4).parts().scales.data()[0], std::byte{127});
  // 7.9 is nearer to 8 than to 6.
  EXPECT_EQ(Quantized(std::vector<float>(32, 7.9f), 1, 32, schemes::kMxfp4).parts().scales.data()[0], std::byte{128});
}

TEST(Quantize, Nvfp4MapsTheLargestWeightToTheLargestScale) {
  std::vector<float> w(64, 0.01f);
  w[5] = 0.7f;
  const PackedWeight weight = Quantized(w, 2, 32, schemes::kNvfp4);
  EXPECT_FLOAT_EQ(weight.parts().row_scale[0], 0.7f / 2688);
  EXPECT_EQ(weight.parts().row_scale[0], weight.parts().row_scale[1]);
  EXPECT_NEAR(DequantizedF32(weight)[5], 0.7f, 0.7f * 1e-6f);
}

TEST(Quantize, ZeroGroupsBecomeZero) {
  for (std::string_view name : SchemeNames()) {
    std::vector<float> w(4 * 256, 0.0f);
    w[3 * 256 + 200] = 1.0f;
    const PackedWeight weight = Quantized(w, 4, 256, *SchemeByName(name));
    const std::vector<float> values = DequantizedF32(weight);
    for (size_t i = 0; i < 3 * 256; ++i) EXPECT_EQ(values[i], 0.0f) << name;
    for (float value : DequantizedF32(Quantized(std::vector<float>(64, 0.0f), 1, 64, *SchemeByName(name)))) EXPECT_EQ(value, 0.0f) << name;
  }
}

TEST(Quantize, ExtremeWeightsStayFinite) {
  for (std::string_view name : SchemeNames()) {
    if (name == "f16") continue;  // refused, see below
    for (float size : {3e38f, 1e-38f, 1e-44f}) {
      for (float value : DequantizedF32(Quantized(test::Gaussian(64, 4, size / 8), 1, 64, *SchemeByName(name)))) {
        ASSERT_TRUE(std::isfinite(value)) << name << " at " << size;
        ASSERT_LE(std::fabs(value), size * 1.2f + 1e-38f) << name << " at " << size;
      }
    }
  }
}

TEST(Quantize, ReadsHalfPrecisionExactly) {
  const std::vector<float> w = test::RoundedToBF16(test::Gaussian(96, 5, 0.1f));
  const std::vector<uint16_t> bits = test::ToBF16(w);
  const auto from_bf16 = PackedWeight::Quantize(ConstTensorView(bits.data(), DType::kBF16, {3, 32}), schemes::kMxfp4);
  ASSERT_TRUE(from_bf16);
  EXPECT_EQ(DequantizedF32(*from_bf16), DequantizedF32(Quantized(w, 3, 32, schemes::kMxfp4)));

  std::vector<uint16_t> halves;
  for (float value : w) halves.push_back(F16FromF32(value));
  std::vector<float> as_half;
  for (uint16_t half : halves) as_half.push_back(F32FromF16(half));
  const auto from_f16 = PackedWeight::Quantize(ConstTensorView(halves.data(), DType::kF16, {3, 1, 32}), schemes::kF32);
  ASSERT_TRUE(from_f16);
  EXPECT_EQ(from_f16->E(), 3);
  EXPECT_EQ(DequantizedF32(*from_f16), as_half);
}

TEST(Quantize, ScalesOfEveryTypeAreTriedAsStored) {
  const std::vector<float> w = test::Gaussian(256, 6);
  for (CodeBook codes : {CodeBook::kInt4, CodeBook::kE2M1, CodeBook::kE4M3}) {
    for (DType scale : {DType::kF8E8M0, DType::kF8E4M3, DType::kBF16, DType::kF16, DType::kF32}) {
      for (bool row_scale : {false, true}) {
        const QuantScheme scheme{codes, 32, 1, scale, ZeroPoint::kNone, row_scale};
        EXPECT_LE(RelativeError(DequantizedF32(Quantized(w, 2, 128, scheme)), w), 0.16) << scheme.Name();
      }
    }
  }
}

TEST(Quantize, RefusesWhatItCannotQuantise) {
  std::vector<float> w(64, 1.0f);
  const auto refusal = [](ConstTensorView view, const QuantScheme& scheme) {
    return std::string(PackedWeight::Quantize(view, scheme).status().message());
  };
  w[33] = NAN;
  EXPECT_THAT(refusal({w.data(), DType::kF32, {2, 32}}, schemes::kMxfp4), HasSubstr("expert 0, row 1, k 1 is nan; only finite"));
  w[33] = INFINITY;
  EXPECT_THAT(refusal({w.data(), DType::kF32, {2, 1, 32}}, schemes::kF32), HasSubstr("expert 1, row 0, k 1 is inf"));
  w[33] = 1e6f;
  EXPECT_THAT(refusal({w.data(), DType::kF32, {2, 32}}, schemes::kF16), HasSubstr("above fp16's largest number 65504"));
  EXPECT_THAT(refusal({w.data(), DType::kF32, {64}}, schemes::kMxfp4), HasSubstr("give [N, K] or [E, N, K]"));
  EXPECT_THAT(refusal({w.data(), DType::kI32, {2, 32}}, schemes::kMxfp4), HasSubstr("give f32, f16 or bf16"));
  ConstTensorView strided(w.data(), DType::kF32, {2, 16});
  strided.set_strides(std::vector<int64_t>{32, 1});
  EXPECT_THAT(refusal(strided, schemes::kMxfp4), HasSubstr("gaps between its rows"));
  QuantScheme blocks = schemes::kMxfp4;
  blocks.group_rows = 2;
  EXPECT_THAT(refusal({w.data(), DType::kF32, {2, 32}}, blocks), HasSubstr("share 4-bit scales between rows"));
  EXPECT_THAT(refusal({w.data(), DType::kF32, {0, 32}}, schemes::kMxfp4), HasSubstr("N = 0"));
}

}  // namespace
}  // namespace billfish
