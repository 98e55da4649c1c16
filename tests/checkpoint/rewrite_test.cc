// Checkpoints of other software, written again: the same numbers, or a refusal that says why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "billfish/quantize.h"
#include "checkpoint/write_fixture.h"

namespace billfish {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::SafetensorsBuilder;
using test::TemporaryFolder;
using testing::HasSubstr;

fs::path Golden(const char* name) { return fs::path(BILLFISH_SOURCE_DIR) / "tests/golden" / name; }

TEST(Rewrite, KeepsTheNumbersOfOtherSoftware) {
  struct Case {
    const char* golden;
    const char* scheme;
    QuantLayout layout;
  };
  const QuantLayout packed = QuantLayout::kCompressedTensors, gptq = QuantLayout::kGptq;
  for (const Case& c : {Case{"ct-pack-int4-sym-g128", "int4-g128", packed}, Case{"awq-gemm-g32", "int4-g32-asym", gptq},
                        Case{"awq-gemm-g32", "int4-g32-asym", packed}, Case{"gptq-v2-asym-g32", "int4-g32-asym", packed},
                        Case{"gptq-v1-sym-g128", "int4-g128", packed}, Case{"gptq-v1-sym-g128", "int4-g128", gptq},
                        Case{"ct-mxfp4", "mxfp4", packed}, Case{"ct-nvfp4", "nvfp4", packed}, Case{"modelopt-nvfp4-pow2", "nvfp4", packed},
                        Case{"ct-fp8-block128", "fp8-block128", packed}, Case{"deepseek-v3-fp8", "fp8-block128", packed}}) {
    SCOPED_TRACE(c.golden);
    const TemporaryFolder folder;
    QuantizeOptions options;
    options.scheme = *SchemeByName(c.scheme);
    options.layout = c.layout;
    const Status status = QuantizeCheckpoint(Golden(c.golden), folder / "dst", options);
    ASSERT_TRUE(status.ok()) << status.message();
    const auto before = Checkpoint::Open(Golden(c.golden)), after = Checkpoint::Open(folder / "dst");
    ASSERT_TRUE(after) << after.error().message();
    const auto modules = before->Modules();
    for (const ModuleInfo& module : *modules) {
      EXPECT_EQ(test::LoadDecoded(*after, module.name), test::LoadDecoded(*before, module.name)) << module.name;
    }
  }
}

TEST(Rewrite, TwiceGivesTheSameFiles) {
  for (const char* scheme : {"mxfp4", "nvfp4", "int4-g32-asym", "fp8-tensor"}) {
    const TemporaryFolder folder;
    test::WriteSmallMoe(folder / "src");
    QuantizeOptions options;
    options.scheme = *SchemeByName(scheme);
    ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "once", options).ok());
    const Status again = QuantizeCheckpoint(folder / "once", folder / "twice", options);
    ASSERT_TRUE(again.ok()) << again.message();
    EXPECT_EQ(test::FolderContent(folder / "once"), test::FolderContent(folder / "twice")) << scheme;
  }
}

TEST(Rewrite, ActOrderIsRefusedByName) {
  const TemporaryFolder folder;
  QuantizeOptions options;
  options.scheme = *SchemeByName("int4-g32");
  const Status status = QuantizeCheckpoint(Golden("gptq-actorder-g32"), folder / "dst", options);
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(std::string(status.message()), HasSubstr("act-order"));
  EXPECT_FALSE(fs::exists(folder / "dst"));
  options.requantize = true;
  const Status allowed = QuantizeCheckpoint(Golden("gptq-actorder-g32"), folder / "dst", options);
  EXPECT_TRUE(allowed.ok()) << allowed.message();
}

class OneMatrix : public testing::Test {
 protected:
  std::string Message(const QuantizeOptions& options) {
    const Status status = QuantizeCheckpoint(folder_ / "m.safetensors", folder_ / "dst", options);
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
    EXPECT_FALSE(fs::exists(folder_ / "dst"));
    return std::string(status.message());
  }
  void Write(const std::vector<int64_t>& shape, const std::vector<float>& values) {
    SafetensorsBuilder().Add<float>("layers.0.up_proj.weight", "F32", shape, values).Write(folder_ / "m.safetensors");
  }
  TemporaryFolder folder_;
};

TEST_F(OneMatrix, IsASourceToo) {
  Write({2, 32}, std::vector<float>(64, 1.0f));
  const Status status = QuantizeCheckpoint(folder_ / "m.safetensors", folder_ / "dst", {});
  ASSERT_TRUE(status.ok()) << status.message();
  const auto result = Checkpoint::Open(folder_ / "dst");
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(test::LoadDecoded(*result, "layers.0.up_proj"), std::vector<float>(64, 1.0f));
}

TEST_F(OneMatrix, WithANanIsRefusedByName) {
  std::vector<float> values(64, 1.0f);
  values[40] = std::numeric_limits<float>::quiet_NaN();
  Write({2, 32}, values);
  EXPECT_THAT(Message({}), HasSubstr("layers.0.up_proj: "));
}

TEST_F(OneMatrix, WithNineRowsFitsNoGptqWord) {
  Write({9, 32}, std::vector<float>(9 * 32, 1.0f));
  QuantizeOptions options;
  options.layout = QuantLayout::kGptq;
  options.scheme = *SchemeByName("int4-g32");
  EXPECT_THAT(Message(options), HasSubstr("has N = 9 rows, which GPTQ packs eight to a word"));
}

TEST_F(OneMatrix, AboveTheRangeOfFp16IsRefusedThere) {
  SafetensorsBuilder()
      .Add<uint8_t>("m.up_proj.weight", "F8_E4M3", {1, 1}, {0x7E})
      .Add<float>("m.up_proj.weight_scale", "F32", {1}, {1000})
      .Write(folder_ / "m.safetensors");
  const Status half = DequantizeCheckpoint(folder_ / "m.safetensors", folder_ / "dst", DType::kF16);
  EXPECT_EQ(half.message(), "m.up_proj: it holds 448000, above fp16's largest number 65504; decode to BF16 or F32");
  const Status single = DequantizeCheckpoint(folder_ / "m.safetensors", folder_ / "dst", DType::kF32);
  EXPECT_TRUE(single.ok()) << single.message();
}

}  // namespace
}  // namespace billfish
