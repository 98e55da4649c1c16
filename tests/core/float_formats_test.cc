#include "core/float_formats.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include "support/golden_file.h"

namespace billfish {
namespace {

// The nearest of all codes by definition, ties to the even code; -1 where nothing is near.
template <class Decode>
int NearestCode(float value, int codes, Decode decode) {
  int best = 0;
  double best_distance = INFINITY;
  for (int code = 0; code < codes; ++code) {
    const double distance = std::fabs(static_cast<double>(decode(code)) - std::fabs(value));
    if (distance < best_distance || (distance == best_distance && code % 2 == 0)) {
      best = code;
      best_distance = distance;
    }
  }
  return best;
}

TEST(BF16, EveryCodeSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = F32FromBF16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F32FromBF16(BF16FromF32(value)))) << bits;
    } else {
      EXPECT_EQ(BF16FromF32(value), bits);
    }
  }
}

TEST(BF16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3F808000u)), 0x3F80);  // tie to even
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3F818000u)), 0x3F82);
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3F808001u)), 0x3F81);
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x7F7FFFFFu)), 0x7F80);  // beyond the largest bf16
  EXPECT_TRUE(std::isnan(F32FromBF16(BF16FromF32(std::bit_cast<float>(0x7F800001u)))));
  EXPECT_TRUE(std::isnan(F32FromBF16(BF16FromF32(std::bit_cast<float>(0xFFFFFFFFu)))));
}

TEST(F16, EveryCodeSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = F32FromF16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F32FromF16(F16FromF32(value)))) << bits;
    } else {
      EXPECT_EQ(F16FromF32(value), bits);
    }
  }
}

TEST(F16, DecodesKnownValues) {
  EXPECT_EQ(F32FromF16(0x3C00), 1.0f);
  EXPECT_EQ(F32FromF16(0x0001), 0x1p-24f);
  EXPECT_EQ(F32FromF16(0x03FF), 0x1p-14f - 0x1p-24f);
  EXPECT_EQ(F32FromF16(0x0400), 0x1p-14f);
  EXPECT_EQ(F32FromF16(0x7BFF), 65504.0f);
  EXPECT_EQ(F32FromF16(0xFC00), -INFINITY);
}

TEST(F16, RoundsToNearestEvenBetweenNeighbours) {
  for (uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const float low = F32FromF16(static_cast<uint16_t>(bits)), high = F32FromF16(static_cast<uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(F16FromF32(middle), bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(F16FromF32(std::nextafter(middle, 0.0f)), bits);
    EXPECT_EQ(F16FromF32(std::nextafter(middle, INFINITY)), bits + 1);
    EXPECT_EQ(F16FromF32(-middle), 0x8000 | (bits % 2 == 0 ? bits : bits + 1));
  }
  EXPECT_EQ(F16FromF32(65519.996f), 0x7BFF);
  EXPECT_EQ(F16FromF32(65520.0f), 0x7C00);
}

TEST(E4M3, DecodesAll256CodesAsPyTorchDoes) {
  const auto path = test::TestData() / "fixtures/codecs.safetensors";
  if (!test::GoldenFile::Exists(path)) GTEST_SKIP() << path << " is absent";
  const test::GoldenFile golden(path);
  const auto codes = golden["e4m3_all"].As<uint8_t>();
  const auto values = golden["e4m3_val"].As<float>();
  ASSERT_EQ(values.size(), 256U);
  for (size_t i = 0; i < 256; ++i) {
    const float value = F32FromE4M3(codes[i]);
    if (std::isnan(values[i])) {
      EXPECT_TRUE(std::isnan(value)) << i;
      EXPECT_TRUE(IsE4M3Nan(codes[i]));
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(values[i])) << i;
    }
  }
}

TEST(E8M0, DecodesAll256CodesAsPyTorchDoes) {
  const auto path = test::TestData() / "fixtures/codecs.safetensors";
  if (!test::GoldenFile::Exists(path)) GTEST_SKIP() << path << " is absent";
  const auto values = test::GoldenFile(path)["e8m0_val"].As<float>();
  ASSERT_EQ(values.size(), 256U);
  for (size_t i = 0; i < 255; ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(F32FromE8M0(static_cast<uint8_t>(i))), std::bit_cast<uint32_t>(values[i])) << i;
  }
  EXPECT_TRUE(std::isnan(values[255]));
  EXPECT_TRUE(std::isnan(F32FromE8M0(255)));
}

TEST(E8M0, ByteZeroIsASubnormalAndNotZero) {
  EXPECT_EQ(std::bit_cast<uint32_t>(F32FromE8M0(0)), 0x00400000u);
  EXPECT_EQ(F32FromE8M0(1), 0x1p-126f);
  EXPECT_EQ(F32FromE8M0(127), 1.0f);
  EXPECT_EQ(F32FromE8M0(254), 0x1p127f);
}

TEST(BF16, RoundTripsTheValuesOfPyTorch) {
  const auto path = test::TestData() / "fixtures/codecs.safetensors";
  if (!test::GoldenFile::Exists(path)) GTEST_SKIP() << path << " is absent";
  for (uint16_t bits : test::GoldenFile(path)["bf16_rt"].As<uint16_t>()) {
    const float value = F32FromBF16(bits);
    if (!std::isnan(value)) {
      EXPECT_EQ(BF16FromF32(value), bits);
    }
  }
}

TEST(E4M3, KnownCodes) {
  EXPECT_EQ(F32FromE4M3(0x38), 1.0f);
  EXPECT_EQ(F32FromE4M3(0x3C), 1.5f);
  EXPECT_EQ(F32FromE4M3(0x7E), 448.0f);
  EXPECT_EQ(F32FromE4M3(0x01), 0x1p-9f);
  EXPECT_EQ(F32FromE4M3(0x07), 7 * 0x1p-9f);
}

TEST(E4M3, EveryCodeSurvivesARoundTripAndMidpointsGoToTheEvenCode) {
  for (int code = 0; code < 0x7F; ++code) {
    const auto byte = static_cast<uint8_t>(code);
    EXPECT_EQ(E4M3FromF32(F32FromE4M3(byte)), code);
    EXPECT_EQ(E4M3FromF32(-F32FromE4M3(byte)), code | 0x80);
    if (code == 0x7E) break;
    const float low = F32FromE4M3(byte), high = F32FromE4M3(static_cast<uint8_t>(code + 1));
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(E4M3FromF32(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(E4M3FromF32(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(E4M3FromF32(std::nextafter(middle, INFINITY)), code + 1);
  }
}

TEST(E4M3, SaturatesAt448AndKeepsNan) {
  EXPECT_EQ(E4M3FromF32(449.0f), 0x7E);
  EXPECT_EQ(E4M3FromF32(1e30f), 0x7E);
  EXPECT_EQ(E4M3FromF32(-INFINITY), 0xFE);
  EXPECT_TRUE(IsE4M3Nan(E4M3FromF32(NAN)));
}

TEST(E2M1, HasTheSixteenValuesOfTheSpecification) {
  const float values[] = {0, .5f, 1, 1.5f, 2, 3, 4, 6};
  for (int code = 0; code < 8; ++code) {
    EXPECT_EQ(F32FromE2M1(static_cast<uint8_t>(code)), values[code]);
    EXPECT_EQ(F32FromE2M1(static_cast<uint8_t>(code + 8)), -values[code]);
  }
  EXPECT_TRUE(std::signbit(F32FromE2M1(8)));
}

TEST(E2M1, TiesGoToTheEvenCode) {
  EXPECT_EQ(E2M1FromF32(0.25f), 0);
  EXPECT_EQ(E2M1FromF32(0.75f), 2);
  EXPECT_EQ(E2M1FromF32(1.25f), 2);
  EXPECT_EQ(E2M1FromF32(1.75f), 4);
  EXPECT_EQ(E2M1FromF32(2.5f), 4);
  EXPECT_EQ(E2M1FromF32(3.5f), 6);
  EXPECT_EQ(E2M1FromF32(5.0f), 6);
  EXPECT_EQ(E2M1FromF32(-5.0f), 14);
  EXPECT_EQ(E2M1FromF32(100.0f), 7);
}

TEST(E2M1, EncodesToTheNearestValue) {
  for (int i = -7000; i <= 7000; ++i) {
    const float value = static_cast<float>(i) / 1000;
    const int nearest = NearestCode(value, 8, [](int code) { return F32FromE2M1(static_cast<uint8_t>(code)); });
    EXPECT_EQ(E2M1FromF32(value) & 7, nearest) << value;
    if (i != 0) {
      EXPECT_EQ(E2M1FromF32(value) >> 3, i < 0 ? 1 : 0) << value;
    }
  }
}

}  // namespace
}  // namespace billfish
