// What Model::Load refuses, and what it says then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "edited_model.h"

namespace billfish {
namespace {

using test::EditedModel;
using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::StartsWith;

TEST(ModelLoad, NamesAMissingTensor) {
  for (const std::string name :
       {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "model.layers.1.self_attn.k_proj.weight",
        "model.layers.0.mlp.down_proj.weight", "model.layers.1.post_attention_layernorm.weight"}) {
    EditedModel model("qwen2-tiny");
    model.dropped = {name};
    EXPECT_THAT(model.LoadError(), AllOf(StartsWith("not found: "), HasSubstr(name.substr(0, name.rfind('.'))))) << name;
  }
}

TEST(ModelLoad, NamesAMissingExpertAndRouter) {
  for (const std::string name : {"model.layers.1.block_sparse_moe.experts.3.w2.weight", "model.layers.0.block_sparse_moe.gate.weight"}) {
    EditedModel model("mixtral-window-tiny");
    model.dropped = {name};
    EXPECT_THAT(model.LoadError(), AllOf(StartsWith("not found: "), HasSubstr(name.substr(0, name.rfind('.'))))) << name;
  }
}

TEST(ModelLoad, RequiresTheBiasesOfTheArchitecture) {
  for (const auto& [folder, name] : std::vector<std::pair<std::string, std::string>>{
           {"qwen2-tiny", "model.layers.0.self_attn.v_proj.bias"},
           {"llama-linear-tiny", "model.layers.1.self_attn.o_proj.bias"},
           {"gpt-oss-plain-tiny", "model.layers.1.self_attn.o_proj.bias"},
           {"gpt-oss-plain-tiny", "model.layers.0.mlp.router.bias"},
           {"gpt-oss-plain-tiny", "model.layers.0.mlp.experts.down_proj_bias"},
           {"gpt-oss-plain-tiny", "model.layers.0.self_attn.sinks"},
           {"qwen3-tiny", "model.layers.0.self_attn.k_norm.weight"},
       }) {
    EditedModel model(folder);
    model.dropped = {name};
    EXPECT_THAT(model.LoadError(), AllOf(StartsWith("not found: "), HasSubstr(name))) << folder;
  }
}

TEST(ModelLoad, NamesTheTensorAndBothShapes) {
  EditedModel matrix("qwen2-tiny");
  matrix.shapes["model.layers.1.mlp.up_proj.weight"] = {95, 64};
  EXPECT_THAT(matrix.LoadError(),
              AllOf(StartsWith("corrupt file: "), HasSubstr("model.layers.1.mlp.up_proj"), HasSubstr("95, 64]"), HasSubstr("96, 64]")));
  EditedModel norm("qwen2-tiny");
  norm.shapes["model.layers.0.input_layernorm.weight"] = {63};
  EXPECT_THAT(norm.LoadError(), AllOf(HasSubstr("model.layers.0.input_layernorm.weight"), HasSubstr("[63]"), HasSubstr("[64]")));
  EditedModel expert("mixtral-window-tiny");
  expert.shapes["model.layers.0.block_sparse_moe.experts.2.w1.weight"] = {96, 32};
  EXPECT_THAT(expert.LoadError(),
              AllOf(HasSubstr("model.layers.0.block_sparse_moe.experts.2.w1"), HasSubstr("96, 32]"), HasSubstr("96, 64]")));
  EditedModel vocabulary("qwen2-tiny");
  vocabulary.config["vocab_size"] = 257;
  EXPECT_THAT(vocabulary.LoadError(), AllOf(HasSubstr("model.embed_tokens"), HasSubstr("256, 64]"), HasSubstr("257, 64]")));
}

TEST(ModelLoad, NamesAnUnknownArchitectureAndTheKnownOnes) {
  EditedModel model("qwen2-tiny");
  model.config["architectures"] = {"MambaForCausalLM"};
  std::string error = model.LoadError();
  EXPECT_THAT(error, AllOf(StartsWith("unsupported: "), HasSubstr("MambaForCausalLM")));
  for (const std::string_view name : SupportedArchitectures()) EXPECT_THAT(error, HasSubstr(std::string(name)));
  model.config["architectures"] = nlohmann::json::array();
  EXPECT_THAT(model.LoadError(), AllOf(StartsWith("corrupt file: "), HasSubstr("\"architectures\" is []")));
}

struct BadField {
  const char* folder;
  const char* key;
  nlohmann::json value;
  const char* expected;
};

TEST(ModelLoad, NamesEveryFieldThatIsOutOfRange) {
  const std::vector<BadField> cases = {
      {"qwen2-tiny", "hidden_size", 0, "an integer from 1"},
      {"qwen2-tiny", "hidden_size", "64", "an integer from 1"},
      {"qwen2-tiny", "vocab_size", 18446744073709551615u, "an integer from 1"},
      {"qwen2-tiny", "vocab_size", nullptr, "\"vocab_size\" is missing"},
      {"qwen2-tiny", "num_hidden_layers", 5000, "at most 4096"},
      {"qwen2-tiny", "num_hidden_layers", 3, "layer_types"},
      {"qwen2-tiny", "num_key_value_heads", 3, "a divisor of num_attention_heads"},
      {"qwen2-tiny", "head_dim", 15, "even"},
      {"qwen2-tiny", "rms_norm_eps", 0, "positive"},
      {"qwen2-tiny", "rms_norm_eps", "tiny", "a finite number"},
      {"qwen2-tiny", "tie_word_embeddings", 1, "true or false"},
      {"qwen2-tiny", "hidden_act", 3, "text"},
      {"qwen2-tiny", "hidden_act", "gelu", "silu is"},
      {"qwen2-tiny", "layer_types", {"full_attention", "linear_attention"}, "made of full_attention and sliding_attention"},
      {"qwen2-tiny", "sliding_window", 0, "an integer from 1"},
      {"qwen2-tiny", "eos_token_id", 256, "below vocab_size"},
      {"qwen2-tiny", "eos_token_id", {1, -2}, "below vocab_size"},
      {"qwen2-tiny", "rope_parameters", 7, "an object"},
      {"qwen2-tiny", "rope_parameters", {{"rope_type", "dynamic"}, {"factor", 2}}, "default, linear, llama3 and yarn are"},
      {"qwen2-tiny", "rope_parameters", {{"rope_theta", -1}}, "positive"},
      {"qwen2-tiny", "rope_parameters", {{"rope_type", "linear"}}, "\"factor\" is missing"},
      {"qwen2-tiny", "rope_parameters", {{"rope_type", "yarn"}, {"factor", 0}}, "positive"},
      {"qwen2-tiny",
       "rope_parameters",
       {{"rope_type", "llama3"}, {"factor", 2}, {"low_freq_factor", 4}, {"high_freq_factor", 4}},
       "above low_freq_factor"},
      {"qwen2-tiny", "partial_rotary_factor", 0.5, "partial_rotary_factor is 0.5"},
      {"mixtral-window-tiny", "num_local_experts", 0, "an integer from 1"},
      {"mixtral-window-tiny", "num_experts_per_tok", 5, "top_k"},
      {"gpt-oss-plain-tiny", "swiglu_limit", 0, "positive"},
      {"gpt-oss-plain-tiny", "swiglu_alpha", -1, "positive"},
  };
  for (const BadField& bad : cases) {
    EditedModel model(bad.folder);
    model.config[bad.key] = bad.value;
    EXPECT_THAT(model.LoadError(), HasSubstr(bad.expected)) << bad.key << " = " << bad.value;
  }
}

TEST(ModelLoad, JoinsTheStopIdsOfBothFiles) {
  EditedModel model("qwen2-tiny");
  model.config["eos_token_id"] = 7;
  model.generation_config = R"({"eos_token_id": [9, 7, 3]})";
  const auto loaded = model.Load();
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->config().eos_ids, (std::vector<int32_t>{3, 7, 9}));
  model.generation_config = R"({"eos_token_id": [9, "x"]})";
  EXPECT_THAT(model.LoadError(), HasSubstr("generation_config.json: \"eos_token_id\""));
  model.generation_config = "{";
  EXPECT_THAT(model.LoadError(), HasSubstr("generation_config.json must hold a JSON object"));
}

TEST(ModelLoad, RefusesActivationsAndContextsThatItCannotHave) {
  EditedModel model("qwen2-tiny");
  ModelOptions options;
  options.activation = DType::kF16;
  EXPECT_THAT(model.LoadError(options), HasSubstr("F16 activations were asked for; F32 and BF16 are possible"));
  options.activation = DType::kF32;
  options.max_context = -1;
  EXPECT_THAT(model.LoadError(options), HasSubstr("max_context is -1"));
  options.max_context = 512;
  const auto loaded = model.Load(options);
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->max_context(), 512);
  options.max_context = 0;
  EXPECT_EQ(model.Load(options)->max_context(), 256);
}

TEST(ModelLoad, SaysThatAFolderWithoutConfigurationLacksIt) {
  test::TemporaryFolder folder;
  std::filesystem::copy(test::GoldenModel("qwen2-tiny") / "model.safetensors", folder / "model.safetensors");
  const auto model = Model::Load(folder / "model.safetensors");
  ASSERT_FALSE(model);
  EXPECT_THAT(std::string(model.error().message()), HasSubstr("config.json"));
}

TEST(ModelLoad, ReportsProgressAndStopsWhenAsked) {
  EditedModel model("qwen2-tiny");
  std::vector<LoadProgress> seen;
  ModelOptions options;
  options.progress = [&](const LoadProgress& progress) {
    seen.push_back(progress);
    return true;
  };
  ASSERT_TRUE(model.Load(options));
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(seen[1].layers_done, 2);
  EXPECT_EQ(seen[1].layers, 2);
  EXPECT_GT(seen[1].bytes, seen[0].bytes);
  options.progress = [](const LoadProgress&) { return false; };
  EXPECT_THAT(model.LoadError(options), AllOf(StartsWith("cancelled: "), HasSubstr("after layer 1 of 2")));
}

std::vector<std::string> Kernels(const Model& model) {
  std::vector<std::string> kernels;
  for (const ModuleSummary& module : model.modules()) kernels.push_back(module.kernel);
  return kernels;
}

TEST(ModelLoad, GrantsAWishedKernelWhereItSupportsTheMatrix) {
  if (!std::filesystem::exists(test::TestData() / "fixtures")) GTEST_SKIP() << "no test data at " << test::TestData();
  const std::filesystem::path folder = test::TestData() / "fixtures/gpt-oss-tiny-mxfp4";  // bf16 attention, MXFP4 experts
  ModelOptions options;
  options.kernel = "scalar";
  auto model = Model::Load(folder, options);
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_THAT(Kernels(*model), Each(HasSubstr("scalar")));
  options.kernel = "w4a32_linear_scalar";
  for (const std::string& kernel : Kernels(*model)) {
    if (kernel.rfind("w4", 0) == 0) options.kernel = kernel;
  }
  model = Model::Load(folder, options);
  ASSERT_TRUE(model) << model.error().message();
  for (const ModuleSummary& module : model->modules()) {
    EXPECT_EQ(module.kernel == options.kernel, module.scheme == "mxfp4") << module.name << ": " << module.kernel;
  }
  EditedModel plain("qwen2-tiny");
  EXPECT_THAT(plain.LoadError(options), AllOf(StartsWith("unsupported: "), HasSubstr("no matrix for kernel " + options.kernel)));
  options.kernel = "no_such_kernel";
  EXPECT_THAT(plain.LoadError(options), AllOf(StartsWith("invalid argument: "), HasSubstr("no_such_kernel")));
}

TEST(ModelLoad, SummarisesEveryMatrix) {
  const auto model = Model::Load(test::GoldenModel("mixtral-window-tiny"));
  ASSERT_TRUE(model);
  std::vector<std::string> names;
  for (const ModuleSummary& module : model->modules()) {
    names.push_back(module.name);
    EXPECT_EQ(module.scheme, "bf16");
    EXPECT_EQ(module.weight_bytes, static_cast<size_t>(module.E * module.N * module.K * 2)) << module.name;
    EXPECT_GE(module.bytes, module.weight_bytes);
  }
  ASSERT_EQ(names.size(), 11U);
  EXPECT_EQ(names[0], "model.layers.0.self_attn.qkv_proj");
  EXPECT_EQ(names[3], "model.layers.0.block_sparse_moe.experts.* gate|up");
  EXPECT_EQ(names[10], "lm_head");
}

}  // namespace
}  // namespace billfish
