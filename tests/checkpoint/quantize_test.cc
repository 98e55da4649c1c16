// What is written is what was quantised: numbers, names, configuration; and what cannot be written is refused with the way out.
#include "billfish/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <algorithm>

#include "checkpoint/write_fixture.h"
#include "support/golden_file.h"
#include "support/scheme_test.h"

namespace billfish {
namespace {

using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

nlohmann::json ConfigOf(const fs::path& folder) { return nlohmann::json::parse(test::FileText(folder / "config.json")); }

struct Case {
  const char* scheme;
  QuantLayout layout;
};

class QuantizeRoundTrip : public testing::TestWithParam<Case> {};

TEST_P(QuantizeRoundTrip, ReadsBackBitForBitWhatWasQuantised) {
  const test::TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  QuantizeOptions options;
  options.scheme = *SchemeByName(GetParam().scheme);
  options.layout = GetParam().layout;
  options.modules = QuantModules::kAll;
  options.max_shard_bytes = 60'000;
  const Status status = QuantizeCheckpoint(folder / "src", folder / "dst", options);
  ASSERT_TRUE(status.ok()) << status.message();

  QuantScheme stored = options.scheme;
  if (GetParam().layout == QuantLayout::kGptq) stored.scale = DType::kF16;
  const auto source = Checkpoint::Open(folder / "src");
  const auto written = Checkpoint::Open(folder / "dst");
  ASSERT_TRUE(written.ok()) << written.error().message();
  EXPECT_GT(written->shards().size(), 2U);
  for (const auto& [name, shape] : test::SmallMoeShapes()) {
    SCOPED_TRACE(name);
    const auto info = written->Describe(name);
    ASSERT_TRUE(info.ok()) << info.error().message();
    const Bytes values = *source->Read(name + ".weight");
    if (name == "model.embed_tokens" || name == "model.layers.0.mlp.gate") {
      const Bytes copy = *written->Read(name + ".weight");
      EXPECT_EQ(info->scheme, schemes::kBf16);
      EXPECT_TRUE(std::equal(values.view().begin(), values.view().end(), copy.view().begin(), copy.view().end()));
      continue;
    }
    EXPECT_EQ(info->scheme, stored);
    const std::vector<std::byte> aligned(values.view().begin(), values.view().end());
    const auto quantized = PackedWeight::Quantize({aligned.data(), DType::kBF16, {shape.first, shape.second}}, stored);
    ASSERT_TRUE(quantized.ok()) << quantized.error().message();
    EXPECT_EQ(test::LoadDecoded(*written, name), test::Decoded(*quantized));
  }
  for (const char* tensor : {"model.norm.weight", "model.layers.0.self_attn.q_proj.bias"}) {
    EXPECT_EQ(*source->ReadF32(tensor), *written->ReadF32(tensor)) << tensor;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, QuantizeRoundTrip,
    testing::Values(Case{"mxfp4", QuantLayout::kCompressedTensors}, Case{"nvfp4", QuantLayout::kCompressedTensors},
                    Case{"int4-g32", QuantLayout::kCompressedTensors}, Case{"int4-g64", QuantLayout::kCompressedTensors},
                    Case{"int4-g128", QuantLayout::kCompressedTensors}, Case{"int4-channel", QuantLayout::kCompressedTensors},
                    Case{"int4-g32-asym", QuantLayout::kCompressedTensors}, Case{"int4-g64-asym", QuantLayout::kCompressedTensors},
                    Case{"int4-g128-asym", QuantLayout::kCompressedTensors}, Case{"int4-channel-asym", QuantLayout::kCompressedTensors},
                    Case{"fp8-tensor", QuantLayout::kCompressedTensors}, Case{"fp8-channel", QuantLayout::kCompressedTensors},
                    Case{"fp8-block128", QuantLayout::kCompressedTensors}, Case{"int4-g32", QuantLayout::kGptq},
                    Case{"int4-g128", QuantLayout::kGptq}, Case{"int4-channel", QuantLayout::kGptq},
                    Case{"int4-g32-asym", QuantLayout::kGptq}, Case{"int4-channel-asym", QuantLayout::kGptq}),
    [](const auto& case_info) {
      return test::TestName(std::string(QuantLayoutName(case_info.param.layout)) + "_" + case_info.param.scheme);
    });

TEST(Quantize, SaysInItsConfigurationWhatWasDone) {
  const test::TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  QuantizeOptions options;
  options.scheme = schemes::Int4(32, false);
  options.modules = QuantModules::kExperts;
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "dst", options).ok());
  const nlohmann::json config = ConfigOf(folder / "dst"), quantization = config["quantization_config"];
  EXPECT_EQ(config["model_type"], "qwen3_moe");
  EXPECT_EQ(quantization["quant_method"], "compressed-tensors");
  EXPECT_EQ(quantization["format"], "pack-quantized");
  const nlohmann::json weights = quantization["config_groups"]["group_0"]["weights"];
  EXPECT_EQ(weights["num_bits"], 4);
  EXPECT_EQ(weights["group_size"], 32);
  EXPECT_EQ(weights["symmetric"], false);
  EXPECT_EQ(quantization["ignore"], nlohmann::json({"lm_head", "model.layers.0.mlp.gate", "model.layers.0.mlp.shared_expert.up_proj",
                                                    "model.layers.0.self_attn.q_proj"}));
  options.layout = QuantLayout::kGptq;
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "gptq", options).ok());
  const nlohmann::json gptq = ConfigOf(folder / "gptq")["quantization_config"];
  EXPECT_EQ(gptq["checkpoint_format"], "gptq_v2");
  EXPECT_EQ(gptq["sym"], false);
  EXPECT_TRUE(gptq["dynamic"].contains("-:^model\\.layers\\.0\\.self_attn\\.q_proj$")) << gptq;
}

TEST(Quantize, CopiesTheTokenizerAndNothingThatIsNoLongerTrue) {
  const test::TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "dst", {}).ok());
  const auto content = test::FolderContent(folder / "dst");
  std::vector<std::string> names;
  for (const auto& [name, text] : content) names.push_back(name);
  EXPECT_THAT(names, testing::ElementsAre("chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
                                          "tokenizer.json", "tokenizer_config.json"));
  EXPECT_EQ(content.at("tokenizer.json"), "{\"a\": 1}");
  EXPECT_FALSE(fs::exists(folder / "dst.partial"));
}

TEST(Quantize, GivesTheSameFilesOnAnyNumberOfThreads) {
  const test::TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  QuantizeOptions options;
  options.threads = 1;
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "one", options).ok());
  options.threads = 3;
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "three", options).ok());
  EXPECT_EQ(test::FolderContent(folder / "one"), test::FolderContent(folder / "three"));
}

TEST(Quantize, LeavesIgnoredModulesAsTheyAre) {
  const test::TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  QuantizeOptions options;
  options.ignore = {"model.layers.0.self_attn.q_proj", "re:.*experts\\.1\\."};
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "dst", options).ok());
  const auto written = Checkpoint::Open(folder / "dst");
  EXPECT_EQ(written->Describe("model.layers.0.self_attn.q_proj")->scheme, schemes::kBf16);
  EXPECT_EQ(written->Describe("model.layers.0.mlp.experts.1.up_proj")->scheme, schemes::kBf16);
  EXPECT_EQ(written->Describe("model.layers.0.mlp.experts.0.up_proj")->scheme, schemes::kMxfp4);
  EXPECT_THAT(ConfigOf(folder / "dst")["quantization_config"]["ignore"], testing::Contains("model.layers.0.mlp.experts.1.up_proj"));
}

TEST(Quantize, RewritesTheSameNumbersInAnotherLayoutWithoutLoss) {
  const test::TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  QuantizeOptions options;
  options.scheme = schemes::Int4(32, false);
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "packed", options).ok());
  options.layout = QuantLayout::kGptq;
  const Status status = QuantizeCheckpoint(folder / "packed", folder / "gptq", options);
  ASSERT_TRUE(status.ok()) << status.message();
  const auto packed = Checkpoint::Open(folder / "packed"), gptq = Checkpoint::Open(folder / "gptq");
  const std::string module = "model.layers.0.mlp.experts.1.down_proj";
  EXPECT_EQ(gptq->Describe(module)->format, "gptq-v2");
  EXPECT_EQ(test::LoadDecoded(*gptq, module), test::LoadDecoded(*packed, module));
}

TEST(Quantize, QuantisesDecodedNumbersOnlyWhenAsked) {
  const test::TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  QuantizeOptions options;
  options.scheme = schemes::kFp8Channel;
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "fp8", options).ok());
  options.scheme = schemes::kMxfp4;
  const Status status = QuantizeCheckpoint(folder / "fp8", folder / "dst", options);
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(std::string(status.message()), HasSubstr("already is fp8-channel"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("requantize"));
  EXPECT_FALSE(fs::exists(folder / "dst.partial"));
  options.requantize = true;
  options.modules = QuantModules::kExperts;
  ASSERT_TRUE(QuantizeCheckpoint(folder / "fp8", folder / "dst", options).ok());
  const auto fp8 = Checkpoint::Open(folder / "fp8"), written = Checkpoint::Open(folder / "dst");
  const std::string module = "model.layers.0.mlp.experts.0.up_proj";
  const std::vector<float> decoded = test::LoadDecoded(*fp8, module);
  const auto expected = PackedWeight::Quantize({decoded.data(), DType::kF32, {128, 256}}, schemes::kMxfp4);
  EXPECT_EQ(test::LoadDecoded(*written, module), test::Decoded(*expected));
  EXPECT_EQ(written->Describe("model.layers.0.self_attn.q_proj")->scheme, schemes::kBf16);
}

TEST(Quantize, RefusesWhatTheLayoutCannotHold) {
  const test::TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  const auto message = [&](const QuantizeOptions& options) {
    const Status status = QuantizeCheckpoint(folder / "src", folder / "dst", options);
    EXPECT_FALSE(status.ok());
    EXPECT_FALSE(fs::exists(folder / "dst"));
    return std::string(status.message());
  };
  QuantizeOptions options;
  options.layout = QuantLayout::kGptq;
  EXPECT_THAT(message(options), HasSubstr("mxfp4 was asked for in the layout gptq, which holds int4"));
  EXPECT_THAT(message(options), HasSubstr("layouts that hold it: compressed-tensors, gpt-oss"));
  options.layout = QuantLayout::kGptOss;
  EXPECT_THAT(message(options), HasSubstr("is no gpt_oss model"));
  options = {};
  options.scheme = schemes::kBf16;
  EXPECT_THAT(message(options), HasSubstr("plain numbers are written by dequantising"));
  options.scheme = schemes::Int4(96, true);
  EXPECT_THAT(message(options), HasSubstr("K = 256"));
  EXPECT_THAT(message(options), HasSubstr("multiple of 96"));
  options = {};
  options.ignore = {"re:.*"};
  EXPECT_THAT(message(options), HasSubstr("has nothing to quantise"));
  options.ignore = {"re:("};
  EXPECT_THAT(message(options), Not(testing::IsEmpty()));
  options = {};
  options.max_shard_bytes = 0;
  EXPECT_THAT(message(options), HasSubstr("shards of at most 0 bytes"));
}

TEST(Quantize, NamesItsLayoutsAndModules) {
  EXPECT_EQ(*QuantLayoutByName("gpt-oss"), QuantLayout::kGptOss);
  EXPECT_EQ(*QuantModulesByName("experts"), QuantModules::kExperts);
  EXPECT_THAT(std::string(QuantLayoutByName("awq").error().message()), HasSubstr("give compressed-tensors, gptq or gpt-oss"));
  EXPECT_THAT(std::string(QuantModulesByName("most").error().message()), HasSubstr("give experts, linears or all"));
}

TEST(Dequantize, WritesPlainNumbersAndAConfigurationWithoutQuantisation) {
  const test::TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "q", {}).ok());
  const std::string module = "model.layers.0.mlp.experts.0.down_proj";
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const std::string name(DTypeName(dtype));
    ASSERT_TRUE(DequantizeCheckpoint(folder / "q", folder / name, dtype).ok());
    EXPECT_FALSE(ConfigOf(folder / name).contains("quantization_config"));
    const auto quantized = Checkpoint::Open(folder / "q"), plain = Checkpoint::Open(folder / name);
    EXPECT_EQ(plain->Find(module + ".weight")->dtype, dtype);
    EXPECT_EQ(plain->tensors().size(), Checkpoint::Open(folder / "src")->tensors().size());
    EXPECT_EQ(*plain->ReadF32(module + ".weight"), test::LoadDecoded(*quantized, module));  // 4-bit values fit every type
  }
  EXPECT_EQ(ConfigOf(folder / "F32")["dtype"], "float32");
  const Status twice = DequantizeCheckpoint(folder / "F32", folder / "again", DType::kBF16);
  EXPECT_THAT(std::string(twice.message()), HasSubstr("no quantised module"));
  const Status integers = DequantizeCheckpoint(folder / "q", folder / "again", DType::kI32);
  EXPECT_THAT(std::string(integers.message()), HasSubstr("give BF16, F16 or F32"));
}

TEST(GptOss, ExpertsSurviveDecodingAndQuantisingAgain) {
  const fs::path source = test::TestData() / "fixtures/gpt-oss-tiny-mxfp4";
  if (!fs::exists(source)) GTEST_SKIP() << "no test data at " << source;
  const test::TemporaryFolder folder;
  QuantizeOptions options;
  options.layout = QuantLayout::kGptOss;
  const Status linears = QuantizeCheckpoint(source, folder / "rewritten", options);
  EXPECT_THAT(std::string(linears.message()), HasSubstr("it holds experts only"));
  options.modules = QuantModules::kExperts;
  ASSERT_TRUE(QuantizeCheckpoint(source, folder / "rewritten", options).ok());
  ASSERT_TRUE(DequantizeCheckpoint(source, folder / "plain", DType::kBF16).ok());
  const Status again = QuantizeCheckpoint(folder / "plain", folder / "again", options);
  ASSERT_TRUE(again.ok()) << again.message();
  const auto first = Checkpoint::Open(source), rewritten = Checkpoint::Open(folder / "rewritten"),
             plain = Checkpoint::Open(folder / "plain"), second = Checkpoint::Open(folder / "again");
  EXPECT_EQ(ConfigOf(folder / "again")["quantization_config"], ConfigOf(source)["quantization_config"]);
  for (const char* projection : {"gate_up_proj", "down_proj"}) {
    const std::string module = std::string("model.layers.0.mlp.experts.") + projection;
    const std::vector<float> values = test::LoadDecoded(*first, module);
    EXPECT_EQ(test::LoadDecoded(*rewritten, module), values);
    EXPECT_EQ(second->Describe(module)->format, "gpt-oss mxfp4");
    // The quantiser need not choose the same scales for numbers that already are MXFP4, but it may not lose any.
    EXPECT_EQ(test::LoadDecoded(*second, module), values);
    // [E, K, N] in the plain file.
    const TensorInfo* tensor = plain->Find(module);
    ASSERT_NE(tensor, nullptr);
    const auto info = first->Describe(module);
    EXPECT_EQ(tensor->shape, (std::vector<int64_t>{info->E, info->K, info->N}));
    const std::vector<float> transposed = *plain->ReadF32(module);
    const int64_t e = 3, n = 5, k = 17;
    EXPECT_EQ(transposed[static_cast<size_t>((e * info->K + k) * info->N + n)],
              values[static_cast<size_t>((e * info->N + n) * info->K + k)]);
  }
  EXPECT_EQ(*second->ReadF32("model.layers.0.mlp.experts.gate_up_proj_bias"),
            *first->ReadF32("model.layers.0.mlp.experts.gate_up_proj_bias"));
}

}  // namespace
}  // namespace billfish
