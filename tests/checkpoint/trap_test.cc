// The traps of quantised checkpoints: what files and configurations say, and what must not be believed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "billfish/checkpoint.h"
#include "support/checkpoint_folder.h"

namespace billfish {
namespace {

using test::SafetensorsBuilder;
using test::TemporaryFolder;
using test::WriteFile;
using testing::HasSubstr;

struct Loaded {
  Status status;
  ModuleInfo info;
  PackedWeight weight;
  std::vector<float> values;
};

// Writes the folder, opens it and decodes module "m".
Loaded Load(const SafetensorsBuilder& tensors, const std::string& quantization, const std::string& file = "config.json") {
  const TemporaryFolder folder;
  tensors.Write(folder / "model.safetensors");
  if (file == "config.json") {
    WriteFile(folder / "config.json", quantization.empty() ? "{}" : R"({"quantization_config":)" + quantization + "}");
  } else {
    WriteFile(folder / file, quantization);
  }
  Loaded loaded;
  auto checkpoint = Checkpoint::Open(folder.path());
  if (!checkpoint) return loaded.status = checkpoint.error(), loaded;
  auto info = checkpoint->Describe("m");
  if (!info) return loaded.status = info.error(), loaded;
  loaded.info = *info;
  auto weight = checkpoint->LoadWeight("m");
  if (!weight) return loaded.status = weight.error(), loaded;
  loaded.weight = *weight;
  loaded.values.resize(static_cast<size_t>(info->E * info->N * info->K));
  loaded.status = weight->Dequantize({loaded.values.data(), DType::kF32, {info->E, info->N, info->K}});
  return loaded;
}

// One GPTQ column of eight codes 0 1 2 3 12 13 14 15 per output, scale 0.5, the given stored zero word.
SafetensorsBuilder Gptq(uint32_t zeros) {
  return SafetensorsBuilder()
      .Add<uint32_t>("m.qweight", "I32", {1, 8}, std::vector<uint32_t>(8, 0xFEDC3210u))
      .Add<uint32_t>("m.qzeros", "I32", {1, 1}, {zeros})
      .Add<uint16_t>("m.scales", "F16", {1, 8}, std::vector<uint16_t>(8, 0x3800));
}

std::string GptqConfig(const std::string& more) { return R"({"quant_method":"gptq","bits":4,"group_size":-1)" + more + "}"; }

TEST(GptqTraps, VersionOneAddsOneAndVersionTwoDoesNot) {
  EXPECT_FLOAT_EQ(Load(Gptq(0x77777777), GptqConfig(R"(,"sym":false)")).values[0], -4.0f);
  EXPECT_FLOAT_EQ(Load(Gptq(0x88888888), GptqConfig(R"(,"sym":false,"checkpoint_format":"gptq_v2")")).values[0], -4.0f);
}

TEST(GptqTraps, SymmetricFilesIgnoreTheStoredZeros) {
  for (const uint32_t zeros : {0u, 0x88888888u, 0x12345678u}) {
    const Loaded loaded = Load(Gptq(zeros), GptqConfig(R"(,"sym":true)"));
    EXPECT_EQ(loaded.values, Load(Gptq(0x77777777), GptqConfig(R"(,"sym":true)")).values);
    EXPECT_FLOAT_EQ(loaded.values[0], -4.0f);
    EXPECT_EQ(loaded.weight.scheme().zero, ZeroPoint::kNone);
  }
}

TEST(GptqTraps, AStoredFifteenIsSixteenNotZero) { EXPECT_FLOAT_EQ(Load(Gptq(0xFFFFFFFF), GptqConfig(R"(,"sym":false)")).values[0], -8.0f); }

TEST(GptqTraps, WholeWordSubtractionIsUndoneForItsOwnWriter) {
  // zeros 0 8 8 8 8 8 8 8 = 0x88888880, minus 0x11111111 = 0x7777776F with a borrow.
  const Loaded own = Load(Gptq(0x7777776F), GptqConfig(R"(,"sym":false,"meta":{"quantizer":["gptqmodel:5.0"]})"));
  EXPECT_FLOAT_EQ(own.values[0], 0.0f);
  EXPECT_FLOAT_EQ(own.values[8], -4.0f);
  const Loaded other = Load(Gptq(0x7777776F), GptqConfig(R"(,"sym":false)"));
  EXPECT_FLOAT_EQ(other.values[0], -8.0f);  // 15 + 1
}

TEST(GptqTraps, DescActIsDecidedByGIdx) {
  std::vector<int32_t> g_idx(16);
  for (int k = 0; k < 16; ++k) g_idx[static_cast<size_t>(k)] = k % 2;
  const auto load = [&] {
    auto tensors = SafetensorsBuilder()
                       .Add<uint32_t>("m.qweight", "I32", {2, 8}, std::vector<uint32_t>(16, 0x99999999u))
                       .Add<uint32_t>("m.qzeros", "I32", {2, 1}, {0x77777777, 0x77777777})
                       .Add<float>("m.scales", "F32", {2, 8}, {1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2})
                       .Add<int32_t>("m.g_idx", "I32", {16}, g_idx);
    return Load(tensors, R"({"quant_method":"gptq","bits":4,"group_size":8,"sym":true,"desc_act":false})");
  };
  const Loaded loaded = load();
  ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
  for (size_t k = 0; k < 16; ++k) EXPECT_FLOAT_EQ(loaded.values[k], k % 2 == 0 ? 1.0f : 2.0f);
  g_idx[3] = 7;
  EXPECT_THAT(std::string(load().status.message()), HasSubstr("puts k = 3 into group 7"));
  g_idx[3] = 0;
  EXPECT_THAT(std::string(load().status.message()), HasSubstr("groups of unequal size"));
}

TEST(GptqTraps, ContradictionsNameBothSides) {
  EXPECT_THAT(std::string(Load(Gptq(0), R"({"quant_method":"gptq","bits":8,"sym":true})").status.message()),
              HasSubstr("config.json says 8 bits"));
  EXPECT_THAT(std::string(Load(Gptq(0), R"({"quant_method":"gptq","bits":4,"group_size":2,"sym":true})").status.message()),
              HasSubstr("1 groups along K = 8, and config.json says group_size 2"));
  EXPECT_THAT(std::string(Load(Gptq(0), R"({"quant_method":"awq","bits":4,"group_size":8})").status.message()),
              HasSubstr("its tensors are GPTQ (qweight packed along K), and config.json says \"awq\""));
  EXPECT_THAT(std::string(Load(Gptq(0), R"({"quant_method":"gptq","checkpoint_format":"marlin"})").status.message()),
              HasSubstr("\"marlin\" are not read"));
}

TEST(GptqTraps, DynamicOverridesMatchFromTheStart) {
  const std::string config = GptqConfig(R"(,"sym":false,"dynamic":{"-:lm_head":{},"+:^m$":{"sym":true}})");
  EXPECT_FLOAT_EQ(Load(Gptq(0), config).values[0], -4.0f);
  EXPECT_THAT(std::string(Load(Gptq(0), GptqConfig(R"(,"dynamic":{"+:(":{"sym":true}})")).status.message()), HasSubstr("is invalid"));
}

TEST(GptqTraps, LegacyConfigurationFilesAreRead) {
  EXPECT_FLOAT_EQ(Load(Gptq(0), R"({"bits":4,"group_size":-1,"sym":true})", "quantize_config.json").values[0], -4.0f);
}

TEST(AwqTraps, ColumnsAreInterleavedAndZerosStoredAsTheyAre) {
  auto tensors = SafetensorsBuilder()
                     .Add<uint32_t>("m.qweight", "I32", {2, 1}, {0xFD31EC20u, 0})
                     .Add<uint32_t>("m.qzeros", "I32", {1, 1}, {0x88888888u})
                     .Add<uint16_t>("m.scales", "F16", {1, 8}, std::vector<uint16_t>(8, 0x3800));
  const Loaded loaded = Load(tensors, R"({"quant_method":"awq","bits":4,"group_size":-1,"version":"gemm"})");
  ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
  const float expected[] = {-4, -3.5, -3, -2.5, 2, 2.5, 3, 3.5};
  for (size_t n = 0; n < 8; ++n) EXPECT_FLOAT_EQ(loaded.values[2 * n], expected[n]) << n;
  EXPECT_THAT(std::string(Load(tensors, R"({"quant_method":"awq","bits":4,"group_size":-1,"version":"gemv"})").status.message()),
              HasSubstr("AWQ version \"gemv\""));
}

SafetensorsBuilder Nvfp4(const std::string& global, float value) {
  return SafetensorsBuilder()
      .Add<uint8_t>(global == "m.weight_scale_2" ? "m.weight" : "m.weight_packed", "U8", {1, 8},
                    {0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE})
      .Add<uint8_t>("m.weight_scale", "F8_E4M3", {1, 1}, {0x3C})
      .Add<float>(global, "F32", {1}, {value});
}

TEST(Nvfp4Traps, OneWriterMultipliesByTheGlobalScaleAndTheOtherDivides) {
  const Loaded multiplied = Load(Nvfp4("m.weight_scale_2", 0.5f), R"({"quant_method":"modelopt","quant_algo":"NVFP4"})");
  ASSERT_TRUE(multiplied.status.ok()) << multiplied.status.message();
  EXPECT_FLOAT_EQ(multiplied.values[7], 6 * 1.5f * 0.5f);
  const Loaded divided =
      Load(Nvfp4("m.weight_global_scale", 0.5f), R"({"quant_method":"compressed-tensors","format":"nvfp4-pack-quantized"})");
  ASSERT_TRUE(divided.status.ok()) << divided.status.message();
  EXPECT_FLOAT_EQ(divided.values[7], 6 * 1.5f / 0.5f);
}

TEST(Nvfp4Traps, AZeroDivisorAndAMissingGlobalScaleAreErrors) {
  EXPECT_THAT(std::string(Load(Nvfp4("m.weight_global_scale", 0.0f), "").status.message()), HasSubstr("row scale"));
  auto missing = SafetensorsBuilder().AddFilled("m.weight", "U8", {1, 8}, 8).Add<uint8_t>("m.weight_scale", "F8_E4M3", {1, 1}, {0x38});
  EXPECT_THAT(std::string(Load(missing, "").status.message()),
              HasSubstr("global scale (weight_scale_2 or weight_global_scale) is missing"));
}

TEST(Nvfp4Traps, EveryExpertAndSectionKeepsItsOwnGlobalScale) {
  auto tensors = SafetensorsBuilder()
                     .AddFilled("m.experts.w13_weight", "U8", {2, 4, 8}, 8, 0x22)
                     .AddFilled("m.experts.w13_weight_scale", "F8_E4M3", {2, 4, 1}, 8, 0x38)
                     .Add<float>("m.experts.w13_weight_scale_2", "F32", {2, 2}, {1, 2, 3, 4});
  const TemporaryFolder folder;
  tensors.Write(folder / "model.safetensors");
  const auto weight = Checkpoint::Open(folder.path())->LoadWeight("m.experts.w13");
  ASSERT_TRUE(weight) << weight.error().message();
  EXPECT_EQ(weight->parts().row_scale, (std::vector<float>{1, 1, 2, 2, 3, 3, 4, 4}));
}

TEST(Mxfp4Traps, ScalesMayBeBytesE8M0OrPowersOfTwo) {
  for (const char* dtype : {"U8", "F8_E8M0"}) {
    auto tensors = SafetensorsBuilder().AddFilled("m.weight", "I8", {1, 16}, 8, 0x22).Add<uint8_t>("m.scale", dtype, {1, 1}, {130});
    const Loaded loaded = Load(tensors, "");
    ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
    EXPECT_FLOAT_EQ(loaded.values[0], 8.0f);
  }
  auto floats = SafetensorsBuilder().AddFilled("m.weight", "I8", {1, 16}, 8, 0x22).Add<float>("m.scale", "F32", {1, 1}, {8.0f});
  EXPECT_FLOAT_EQ(Load(floats, "").values[0], 8.0f);
  auto odd = SafetensorsBuilder().AddFilled("m.weight", "I8", {1, 16}, 8, 0x22).Add<float>("m.scale", "F32", {1, 1}, {3.0f});
  EXPECT_THAT(std::string(Load(odd, "").status.message()), HasSubstr("holds 3, which is no power of two"));
}

TEST(Mxfp4Traps, NanScalesAreReportedAndByteZeroIsTiny) {
  auto nan = SafetensorsBuilder().AddFilled("m.weight_packed", "U8", {1, 16}, 8, 0x22).Add<uint8_t>("m.weight_scale", "U8", {1, 1}, {255});
  EXPECT_EQ(Load(nan, "").status.code(), ErrorCode::kCorruptFile);
  auto tiny = SafetensorsBuilder().AddFilled("m.weight_packed", "U8", {1, 16}, 8, 0x22).Add<uint8_t>("m.weight_scale", "U8", {1, 1}, {0});
  EXPECT_EQ(Load(tiny, "").values[0], 0x1p-127f);
}

TEST(Fp8Traps, TheInverseScaleMultiplies) {
  auto tensors = SafetensorsBuilder()
                     .Add<uint8_t>("m.weight", "F8_E4M3", {1, 2}, {0x3C, 0x01})
                     .Add<float>("m.weight_scale_inv", "F32", {1, 1}, {0.02f});
  const Loaded loaded = Load(tensors, R"({"quant_method":"fp8","weight_block_size":[128,128]})");
  ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
  EXPECT_FLOAT_EQ(loaded.values[0], 0.03f);
  EXPECT_FLOAT_EQ(loaded.values[1], 0x1p-9f * 0.02f);
}

TEST(Fp8Traps, PartialBlocksAndPaddedGridsAreRead) {
  auto tensors = SafetensorsBuilder()
                     .AddFilled("m.weight", "F8_E4M3", {130, 129}, 8, 0x38)
                     .Add<float>("m.weight_scale_inv", "F32", {3, 3}, {1, 2, 9, 3, 4, 9, 9, 9, 9});
  const Loaded loaded = Load(tensors, R"({"quant_method":"fp8","weight_block_size":[128,128]})");
  ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
  EXPECT_FLOAT_EQ(loaded.values[128], 2.0f);
  EXPECT_FLOAT_EQ(loaded.values[129 * 129], 3.0f);
  EXPECT_FLOAT_EQ(loaded.values[129 * 129 + 128], 4.0f);
}

TEST(Fp8Traps, NanCodesAndMissingScalesAreReported) {
  auto nan = SafetensorsBuilder().Add<uint8_t>("m.weight", "F8_E4M3", {1, 2}, {0x7F, 0}).Add<float>("m.weight_scale", "F32", {1}, {1});
  EXPECT_THAT(std::string(Load(nan, "").status.message()), HasSubstr("NaN"));
  auto bare = SafetensorsBuilder().AddFilled("m.weight", "F8_E4M3", {1, 2}, 8);
  EXPECT_THAT(std::string(Load(bare, "").status.message()), HasSubstr("its scale is missing"));
}

TEST(Names, TheEarlierAlternativeCounts) {
  auto tensors = SafetensorsBuilder()
                     .AddFilled("m.weight", "F8_E4M3", {1, 2}, 8, 0x38)
                     .Add<float>("m.weight_scale_inv", "F32", {1}, {7})
                     .Add<float>("m.weight_scale", "F32", {1}, {2});
  EXPECT_FLOAT_EQ(Load(tensors, "").values[0], 2.0f);
}

TEST(Unsupported, WhatWouldGiveWrongNumbersIsRefusedByName) {
  auto plain = SafetensorsBuilder().AddFilled("m.weight", "F32", {1, 2}, 32);
  EXPECT_THAT(std::string(Load(plain, R"({"quant_method":"bitsandbytes"})").status.message()),
              HasSubstr("\"bitsandbytes\" is not read; billfish reads gptq"));
  EXPECT_THAT(std::string(Load(plain, R"({"quant_method":"compressed-tensors","transform_config":{"a":1}})").status.message()),
              HasSubstr("transform_config"));
  EXPECT_THAT(
      std::string(
          Load(plain, R"({"quant_method":"compressed-tensors","sparsity_config":{"format":"sparse-24-bitmask"}})").status.message()),
      HasSubstr("sparse-24-bitmask"));
  EXPECT_THAT(std::string(Load(plain, R"({"quant_method":"modelopt","quant_algo":"NVFP4_SVD"})").status.message()), HasSubstr("NVFP4_SVD"));
  auto awq = Nvfp4("m.weight_scale_2", 1).Add<float>("m.pre_quant_scale", "F32", {16}, std::vector<float>(16, 1));
  EXPECT_THAT(std::string(Load(awq, "").status.message()), HasSubstr("m.pre_quant_scale"));
  auto unknown = SafetensorsBuilder().AddFilled("m.weight", "I64", {1, 2}, 64);
  EXPECT_THAT(std::string(Load(unknown, "").status.message()), HasSubstr("no known layout has the tensors of m: m.weight I64[1, 2]"));
}

TEST(Unsupported, ByteWeightsOfOtherKindsAreNotTakenForFourBits) {
  auto bytes = SafetensorsBuilder().AddFilled("m.weight", "I8", {2, 32}, 8, 1).Add<float>("m.weight_scale", "F32", {2, 1}, {1, 1});
  EXPECT_THAT(std::string(Load(bytes, R"({"quant_method":"compressed-tensors","format":"int-quantized"})").status.message()),
              HasSubstr("\"int-quantized\" is not read"));
}

TEST(Nvfp4Traps, ExtentsOfOneInFrontOfTheScalesAreNoDimension) {
  auto tensors = SafetensorsBuilder()
                     .Add<uint8_t>("m.weight", "U8", {1, 8}, {0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE})
                     .Add<uint8_t>("m.weight_scale", "F8_E4M3", {1, 1, 1}, {0x3C})
                     .Add<float>("m.weight_scale_2", "F32", {1}, {0.5f});
  const Loaded loaded = Load(tensors, R"({"quant_method":"modelopt","quant_algo":"NVFP4"})");
  ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
  EXPECT_FLOAT_EQ(loaded.values[7], 4.5f);
}

TEST(Config, DamageIsNamed) {
  auto plain = SafetensorsBuilder().AddFilled("m.weight", "F32", {1, 2}, 32);
  EXPECT_THAT(std::string(Load(plain, "7").status.message()), HasSubstr("\"quantization_config\" must be an object"));
  EXPECT_THAT(std::string(Load(plain, R"({"quant_method":"gptq","bits":"4"})").status.message()), HasSubstr("\"bits\" must be an integer"));
  EXPECT_THAT(std::string(Load(plain, R"({"quant_method":"fp8","weight_block_size":[0,1]})").status.message()),
              HasSubstr("weight_block_size"));
}

}  // namespace
}  // namespace billfish
