// The formula of scheme.h: every code of every code book times every code of a scale.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "billfish/weight.h"
#include "support/golden_file.h"
#include "support/random_tensor.h"
#include "support/weight_numbers.h"

namespace billfish {
namespace {

using test::DequantizedF32;
using testing::HasSubstr;

// Row n holds the 16 nibbles 0..15 in one group whose scale is code n.
PackedWeight AllNibbles(const QuantScheme& scheme, std::vector<std::byte> scales, std::vector<float> row_scale = {},
                        std::vector<std::byte> zeros = {}) {
  const auto rows = static_cast<int64_t>(scales.size()) / (DTypeBits(scheme.scale) / 8);
  WeightParts parts;
  std::vector<std::byte> codes;
  for (int64_t n = 0; n < rows; ++n) {
    for (int j = 0; j < 8; ++j) codes.push_back(static_cast<std::byte>(2 * j | (2 * j + 1) << 4));
  }
  parts.codes = Bytes::Own(codes);
  parts.scales = Bytes::Own(scales);
  parts.row_scale = std::move(row_scale);
  parts.zeros = Bytes::Own(zeros);
  auto weight = PackedWeight::FromParts(scheme, 1, rows, 16, parts);
  EXPECT_TRUE(weight) << weight.status().message();
  return weight ? *weight : PackedWeight();
}

std::vector<std::byte> CodesBelow(int end) {
  std::vector<std::byte> codes;
  for (int i = 0; i < end; ++i) codes.push_back(static_cast<std::byte>(i));
  return codes;
}

TEST(Mxfp4, DecodesAllSixteenCodesTimesAllScalesExactly) {
  const auto path = test::TestData() / "fixtures/codecs.safetensors";
  if (!test::GoldenFile::Exists(path)) GTEST_SKIP() << path << " is absent";
  const auto scales = test::GoldenFile(path)["e8m0_val"].As<float>();
  const std::vector<float> values =
      DequantizedF32(AllNibbles({CodeBook::kE2M1, 32, 1, DType::kF8E8M0, ZeroPoint::kNone, false}, CodesBelow(255)));
  for (size_t b = 0; b < 255; ++b) {
    for (size_t c = 0; c < 16; ++c) {
      EXPECT_EQ(values[b * 16 + c], kE2M1Values[c] * scales[b]) << "code " << c << ", scale byte " << b;
    }
  }
}

TEST(Nvfp4, DecodesAllSixteenCodesTimesAllScalesExactly) {
  const auto path = test::TestData() / "fixtures/codecs.safetensors";
  if (!test::GoldenFile::Exists(path)) GTEST_SKIP() << path << " is absent";
  const auto scales = test::GoldenFile(path)["e4m3_val"].As<float>();
  // Codes 0x7F and 0xFF are NaN and refused, so the two halves are decoded apart.
  for (int half : {0, 0x80}) {
    std::vector<std::byte> codes;
    for (int i = 0; i < 127; ++i) codes.push_back(static_cast<std::byte>(half + i));
    const std::vector<float> values = DequantizedF32(AllNibbles(schemes::kNvfp4, codes, std::vector<float>(127, 0.001f)));
    for (size_t b = 0; b < 127; ++b) {
      for (size_t c = 0; c < 16; ++c) {
        EXPECT_EQ(values[b * 16 + c], kE2M1Values[c] * scales[static_cast<size_t>(half) + b] * 0.001f) << "code " << c << ", scale " << b;
      }
    }
  }
}

TEST(Nvfp4, ExampleOfTheSpecificationDecodes) {
  const std::vector<float> values = DequantizedF32(AllNibbles(schemes::kNvfp4, {std::byte{0x3C}}, {0.001f}));
  const float expected[] = {0, .00075f, .0015f, .00225f, .003f, .0045f, .006f, .009f};
  for (size_t i = 0; i < 8; ++i) EXPECT_FLOAT_EQ(values[i], expected[i]);
}

TEST(Int4, DecodesAllCodesWithEveryZeroPoint) {
  std::vector<std::byte> scales;
  for (int z = 0; z <= 16; ++z) {
    scales.push_back(std::byte{0x00});
    scales.push_back(std::byte{0x3F});  // bf16 0.5
  }
  const std::vector<float> values = DequantizedF32(AllNibbles(schemes::Int4(32, false), scales, {}, CodesBelow(17)));
  for (int z = 0; z <= 16; ++z) {
    for (int q = 0; q < 16; ++q) EXPECT_EQ(values[static_cast<size_t>(z * 16 + q)], static_cast<float>(q - z) * 0.5f);
  }
}

TEST(Int4, SymmetricCodesAreCentredOnEight) {
  const std::vector<float> values =
      DequantizedF32(AllNibbles(schemes::Int4(32, true, DType::kF16), {std::byte{0x00}, std::byte{0x38}}));  // fp16 0.5
  for (int q = 0; q < 16; ++q) EXPECT_EQ(values[static_cast<size_t>(q)], static_cast<float>(q - 8) * 0.5f);
}

TEST(Fp8, DecodesEveryCodeInBlocksThatEndEarly) {
  // 3 x 5 in blocks of 2 x 2: scales [2, 3].
  WeightParts parts;
  std::vector<std::byte> codes;
  for (int i = 0; i < 15; ++i) codes.push_back(static_cast<std::byte>(0x38 + i));
  parts.codes = Bytes::Own(codes);
  const std::vector<float> scales = {1, 2, 4, 8, 16, 32};
  parts.scales = Bytes::Own(scales);
  const auto weight = PackedWeight::FromParts({CodeBook::kE4M3, 2, 2, DType::kF32, ZeroPoint::kNone, false}, 1, 3, 5, parts);
  ASSERT_TRUE(weight);
  const std::vector<float> values = DequantizedF32(*weight);
  for (size_t n = 0; n < 3; ++n) {
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_EQ(values[n * 5 + k], F32FromE4M3(static_cast<uint8_t>(0x38 + n * 5 + k)) * scales[n / 2 * 3 + k / 2]);
    }
  }
}

TEST(PackedNibbles, ExampleBytesDecodeLowNibbleFirst) {
  WeightParts parts;
  std::vector<std::byte> codes;
  for (int byte : {0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE}) codes.push_back(static_cast<std::byte>(byte));
  parts.codes = Bytes::Own(codes);
  parts.scales = Bytes::Own(std::vector<std::byte>{std::byte{127}});
  const auto weight = PackedWeight::FromParts(schemes::kMxfp4, 1, 1, 16, parts);
  ASSERT_TRUE(weight);
  EXPECT_THAT(DequantizedF32(*weight), testing::ElementsAre(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6));
}

TEST(Dequantize, UndoesActOrder) {
  const PackedWeight sorted = test::RandomWeight(schemes::Int4(32, true), 2, 3, 64, 5);
  const PackedWeight permuted = test::WithRandomPerm(sorted, 6);
  const std::vector<float> stored = DequantizedF32(sorted), original = DequantizedF32(permuted);
  for (int64_t row = 0; row < 6; ++row) {
    for (int64_t j = 0; j < 64; ++j) {
      const int64_t k = permuted.parts().perm[static_cast<size_t>(row / 3 * 64 + j)];
      EXPECT_EQ(original[static_cast<size_t>(row * 64 + k)], stored[static_cast<size_t>(row * 64 + j)]);
    }
  }
}

TEST(Dequantize, RoundsToBF16Once) {
  const PackedWeight weight = test::RandomWeight(schemes::Int4(32, true, DType::kF32), 1, 3, 65, 7);
  std::vector<uint16_t> halves(3 * 65);
  ASSERT_TRUE(weight.Dequantize(TensorView(halves.data(), DType::kBF16, {3, 65})).ok());
  EXPECT_EQ(halves, test::ToBF16(DequantizedF32(weight)));
}

TEST(Dequantize, RefusesOtherShapesAndTypes) {
  const PackedWeight weight = test::RandomWeight(schemes::kMxfp4, 2, 3, 32, 8);
  std::vector<float> out(2 * 3 * 32);
  EXPECT_THAT(std::string(weight.Dequantize(TensorView(out.data(), DType::kF32, {3, 32})).message()), HasSubstr("f32[3, 32] was given"));
  EXPECT_THAT(std::string(weight.Dequantize(TensorView(out.data(), DType::kF16, {2, 3, 32})).message()), HasSubstr("f32 or bf16"));
  TensorView strided(out.data(), DType::kF32, {2, 3, 16});
  strided.set_strides(std::vector<int64_t>{96, 32, 1});
  EXPECT_EQ(weight.Dequantize(strided).code(), ErrorCode::kShapeMismatch);
}

TEST(GptOssCheckpoint, BlocksDecodeToWhatTransformersDequantised) {
  const auto folder = test::TestData() / "fixtures/gpt-oss-tiny-mxfp4";
  if (!test::GoldenFile::Exists(folder / "golden.safetensors")) GTEST_SKIP() << folder << " is absent";
  const test::GoldenFile model(folder / "model.safetensors"), golden(folder / "golden.safetensors");
  for (const char* name : {"gate_up", "down"}) {
    const std::string prefix = std::string("model.layers.0.mlp.experts.") + name + "_proj_";
    const test::GoldenTensor blocks = model[prefix + "blocks"];
    const int64_t E = blocks.dim(0), N = blocks.dim(1), K = blocks.dim(2) * 32;
    WeightParts parts;
    parts.codes = blocks.Shared();
    parts.scales = model[prefix + "scales"].Shared();
    const auto weight = PackedWeight::FromParts(schemes::kMxfp4, E, N, K, parts);
    ASSERT_TRUE(weight) << weight.status().message();
    const std::vector<float> values = DequantizedF32(*weight), expected = golden[std::string(name) + "_dequant"].Floats();
    for (int64_t e = 0; e < E; ++e) {
      for (int64_t n = 0; n < N; ++n) {
        for (int64_t k = 0; k < K; ++k) {
          // transformers holds the transpose
          ASSERT_EQ(values[static_cast<size_t>((e * N + n) * K + k)], expected[static_cast<size_t>((e * K + k) * N + n)]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace billfish
