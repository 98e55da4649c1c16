// inspect, verify, quantize and dequantize on the model of this repository.
#include <gmock/gmock.h>

#include <limits>

#include "cli/program.h"
#include "support/checkpoint_folder.h"

namespace billfish::cli_test {
namespace {

using ::testing::HasSubstr;

TEST(Inspect, ShowsArchitectureSchemesAndKernels) {
  const Json document = RunProgram({"inspect", TinyModel(), "--json"}).Document();
  EXPECT_EQ(document["architecture"], "Qwen3MoeForCausalLM");
  int64_t matrices = 0;
  double bytes = 0;
  bool experts = false;
  for (const Json& module : document["modules"]) {
    matrices += module["count"].get<int64_t>();
    bytes += module["bytes"].get<double>();
    EXPECT_NE(module["kernel"], "");
    if (module["name"] != "model.layers.{0-5}.mlp.experts.{0-31}.up_proj") continue;
    experts = true;
    EXPECT_EQ(module["scheme"], "mxfp4");
    EXPECT_EQ(module["count"], 6 * 32);
    EXPECT_EQ(module["experts"], 32);
    EXPECT_NEAR(module["bits_per_weight"].get<double>(), 4.25, 1e-9);
  }
  EXPECT_TRUE(experts);
  EXPECT_EQ(matrices, 607);
  EXPECT_EQ(bytes + document["other_bytes"].get<double>(), document["bytes"].get<double>());
}

TEST(Inspect, AllShowsEveryMatrix) {
  const Json document = RunProgram({"inspect", TinyModel(), "--all", "--json"}).Document();
  EXPECT_EQ(document["modules"].size(), 607U);
}

TEST(Inspect, TextSaysWhyEachKernelRunsOrNot) {
  const Finished run = RunProgram({"inspect", TinyModel()});
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_EQ(run.err, "");
  EXPECT_THAT(run.out, HasSubstr("mxfp4"));
  EXPECT_THAT(run.out, HasSubstr("Which kernel runs on this machine, and why:"));
  EXPECT_THAT(run.out, HasSubstr("rounds activations to int8, which was not asked for"));
}

TEST(Inspect, ATruncatedFileIsNamed) {
  const Scratch scratch;
  fs::copy(TinyModel(), scratch / "cut", fs::copy_options::recursive);
  fs::resize_file(scratch / "cut/model.safetensors", 1'000'000);
  const Finished run = RunProgram({"inspect", scratch / "cut"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("model.safetensors"));
}

TEST(Verify, EveryMatrixAgreesWithTheDefinition) {
  const Finished run = RunProgram({"verify", TinyModel(), "--json"});
  EXPECT_EQ(run.exit_code, 0);
  const Json document = run.Document();
  EXPECT_TRUE(document["ok"].get<bool>());
  EXPECT_EQ(document["modules"].size(), 607U);
  for (const Json& module : document["modules"]) EXPECT_LE(module["error"].get<double>(), 1e-6) << module["name"];
}

TEST(Verify, FastModeIsLessExactButWithinItsOwnLimit) {
  const Json document = RunProgram({"verify", TinyModel(), "--mode", "fast", "--json"}).Document();
  EXPECT_TRUE(document["ok"].get<bool>());
  EXPECT_DOUBLE_EQ(document["tolerance"].get<double>(), 1.05e-2);
}

TEST(Verify, AMatrixBeyondTheToleranceIsNamedAndEndsWithExitCodeOne) {
  const Finished run = RunProgram({"verify", TinyModel(), "--mode", "fast", "--tolerance", "1e-4"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.out, HasSubstr("WRONG, worst model.layers."));
  EXPECT_THAT(run.out, HasSubstr("607 checks agree with the definition within 1.00e-04"));
  const Finished with_json = RunProgram({"verify", TinyModel(), "--mode", "fast", "--tolerance", "1e-4", "--json"});
  EXPECT_EQ(with_json.exit_code, 1);
  EXPECT_FALSE(with_json.Document()["ok"].get<bool>());
}

TEST(Verify, AWeightThatIsNoNumberIsWrong) {
  const Scratch scratch;
  test::SafetensorsBuilder builder;
  std::vector<float> sound(8 * 32, 0.5f), spoiled = sound;
  spoiled[70] = std::numeric_limits<float>::quiet_NaN();
  const auto bytes = [](const std::vector<float>& values) {
    const auto* begin = reinterpret_cast<const std::byte*>(values.data());
    return std::vector<std::byte>(begin, begin + values.size() * sizeof(float));
  };
  builder.Add("good.weight", "F32", {8, 32}, bytes(sound));
  builder.Add("bad.weight", "F32", {8, 32}, bytes(spoiled));
  builder.Write(scratch / "model.safetensors");
  const Finished run = RunProgram({"verify", scratch / "model.safetensors", "--activations", "f32"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.out, HasSubstr("1 WRONG, worst bad"));
  EXPECT_THAT(run.out, HasSubstr("1 of 2 checks agree"));
}

TEST(Verify, AKernelThatDoesNotExistIsNamed) {
  const Finished run = RunProgram({"verify", TinyModel(), "--kernel", "w4a16_linear_abacus"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, HasSubstr("w4a16_linear_abacus"));
}

TEST(Quantize, EverySchemeThereAndBackKeepsTheModelSound) {
  const Scratch scratch;
  const Finished plain = RunProgram({"dequantize", TinyModel(), scratch / "bf16"});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_EQ(plain.out, (scratch / "bf16") + "\n");
  for (const char* scheme : {"mxfp4", "nvfp4", "int4-g32", "int4-g64"}) {
    const Finished run = RunProgram({"quantize", scratch / "bf16", scratch / scheme, "--scheme", scheme, "--json"});
    ASSERT_EQ(run.exit_code, 0) << run.err;
    EXPECT_EQ(run.Document()["scheme"], scheme);
    const Json modules = RunProgram({"inspect", scratch / scheme, "--json"}).Document()["modules"];
    int quantised = 0;
    for (const Json& module : modules) quantised += module["scheme"] == scheme ? 1 : 0;
    EXPECT_EQ(quantised, 7) << scheme;
    EXPECT_EQ(RunProgram({"verify", scratch / scheme}).exit_code, 0) << scheme;
  }
}

TEST(Quantize, QuantisingDequantisedMxfp4IsLossless) {
  const Scratch scratch;
  ASSERT_EQ(RunProgram({"dequantize", TinyModel(), scratch / "bf16"}).exit_code, 0);
  ASSERT_EQ(RunProgram({"quantize", scratch / "bf16", scratch / "again", "--scheme", "mxfp4"}).exit_code, 0);
  ASSERT_EQ(RunProgram({"dequantize", scratch / "again", scratch / "bf16_again"}).exit_code, 0);
  EXPECT_EQ(ReadFile(scratch / "bf16/model.safetensors"), ReadFile(scratch / "bf16_again/model.safetensors"));
}

TEST(Quantize, AsymAndGptqLayoutAndExpertsOnly) {
  const Scratch scratch;
  ASSERT_EQ(RunProgram({"dequantize", TinyModel(), scratch / "bf16"}).exit_code, 0);
  const Finished run = RunProgram({"quantize", scratch / "bf16", scratch / "gptq", "--scheme", "int4-g64", "--asym", "--layout", "gptq",
                                   "--modules", "experts", "--max-shard-size", "3MB"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json document = RunProgram({"inspect", scratch / "gptq", "--json"}).Document();
  EXPECT_GT(document["files"].size(), 2U);
  for (const Json& module : document["modules"]) {
    const bool expert = module["name"].get<std::string>().find(".experts.") != std::string::npos;
    EXPECT_EQ(module["scheme"], expert ? "int4-g64-asym" : "bf16") << module["name"];
  }
}

TEST(Quantize, AnExistingDestinationStaysUnlessOverwritten) {
  const Scratch scratch;
  ASSERT_EQ(RunProgram({"dequantize", TinyModel(), scratch / "bf16"}).exit_code, 0);
  const std::string before = ReadFile(scratch / "bf16/config.json");
  const Finished refused = RunProgram({"dequantize", TinyModel(), scratch / "bf16", "--dtype", "f32"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("bf16"));
  EXPECT_EQ(ReadFile(scratch / "bf16/config.json"), before);
  EXPECT_EQ(RunProgram({"dequantize", TinyModel(), scratch / "bf16", "--dtype", "f32", "--overwrite"}).exit_code, 0);
}

TEST(Quantize, AQuantisedSourceIsRefusedUnlessAskedFor) {
  const Scratch scratch;
  const Finished run = RunProgram({"quantize", TinyModel(), scratch / "out", "--scheme", "int4-g32"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_FALSE(fs::exists(scratch / "out"));
  EXPECT_EQ(RunProgram({"quantize", TinyModel(), scratch / "out", "--scheme", "int4-g32", "--requantize"}).exit_code, 0);
}

TEST(Quantize, ASizeWithoutAMeaningIsRefused) {
  const Finished run = RunProgram({"quantize", TinyModel(), "/tmp/never", "--max-shard-size", "3 bananas"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, HasSubstr("--max-shard-size got '3 bananas'"));
}

}  // namespace
}  // namespace billfish::cli_test
