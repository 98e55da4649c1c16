// Model::Random: the same kernels and sizes as the checkpoint whose configuration it takes, numbers by seed, finite logits.
#include <gmock/gmock.h>

#include <cmath>

#include "edited_model.h"

namespace billfish {
namespace {

using test::GoldenModel;
using testing::HasSubstr;

std::string ConfigOf(const std::filesystem::path& folder) { return nlohmann::json::parse(std::ifstream(folder / "config.json")).dump(); }

std::filesystem::path TinyMoe() { return std::filesystem::path(BILLFISH_SOURCE_DIR) / "models/tiny-moe-mxfp4"; }

std::vector<float> LogitsOf(const Model& model, const std::vector<int32_t>& ids) {
  auto cache = model.NewCache(static_cast<int64_t>(ids.size()));
  EXPECT_TRUE(cache);
  const auto T = static_cast<int64_t>(ids.size()), V = model.config().vocab;
  std::vector<float> logits(static_cast<size_t>(T * V));
  Workspace workspace;
  ExecContext ctx{workspace, 2};
  const Status status = model.Forward(ids, *cache, {logits.data(), DType::kF32, {T, V}}, ctx);
  EXPECT_TRUE(status.ok()) << status.message();
  return logits;
}

// Shape, scheme, kernel and packed bytes of each matrix, without names: a checkpoint may use others.
std::multimap<std::string, size_t> ShapesOf(const Model& model) {
  std::multimap<std::string, size_t> shapes;
  for (const ModuleSummary& m : model.modules()) {
    const std::string shape = std::to_string(m.E) + "x" + std::to_string(m.N) + "x" + std::to_string(m.K);
    shapes.emplace(shape + " " + m.scheme + " " + m.kernel, m.bytes);
  }
  return shapes;
}

TEST(RandomModel, HasTheMatricesOfACheckpointOfItsConfiguration) {
  ModelOptions options;
  options.activation = DType::kBF16;
  RandomModel spec{.config_json = ConfigOf(TinyMoe()), .attention = schemes::kMxfp4};
  const auto random = Model::Random(spec, options), stored = Model::Load(TinyMoe(), options);
  ASSERT_TRUE(random) << random.error().message();
  ASSERT_TRUE(stored) << stored.error().message();
  EXPECT_EQ(ShapesOf(*random), ShapesOf(*stored));
  for (const char* folder : {"gpt-oss-plain-tiny", "mixtral-window-tiny", "qwen2-tiny", "qwen3-yarn-tiny", "llama-linear-tiny"}) {
    spec = {.config_json = ConfigOf(GoldenModel(folder)), .mlp = schemes::kBf16};
    const auto plain = Model::Random(spec, options), golden = Model::Load(GoldenModel(folder), options);
    ASSERT_TRUE(plain) << folder << ": " << plain.error().message();
    ASSERT_TRUE(golden) << folder;
    EXPECT_EQ(ShapesOf(*plain), ShapesOf(*golden)) << folder;
  }
}

TEST(RandomModel, TakesASchemeForEachKindOfMatrix) {
  const RandomModel spec{.config_json = ConfigOf(GoldenModel("gpt-oss-plain-tiny")),
                         .mlp = schemes::kMxfp4,
                         .attention = schemes::Int4(32, true),
                         .lm_head = schemes::kNvfp4};
  const auto model = Model::Random(spec);
  ASSERT_TRUE(model) << model.error().message();
  for (const ModuleSummary& module : model->modules()) {
    const bool attention = module.name.find("self_attn") != std::string::npos, expert = module.name.find("experts") != std::string::npos;
    EXPECT_EQ(module.scheme, attention ? "int4-g32" : expert ? "mxfp4" : module.name == "lm_head" ? "nvfp4" : "bf16") << module.name;
  }
}

TEST(RandomModel, DependsOnTheSeedAlone) {
  RandomModel spec{.config_json = ConfigOf(TinyMoe()), .seed = 3};
  const std::vector<int32_t> ids = {5, 900, 17, 4095};
  const auto once = Model::Random(spec), again = Model::Random(spec);
  ASSERT_TRUE(once && again);
  EXPECT_EQ(LogitsOf(*once, ids), LogitsOf(*again, ids));
  spec.seed = 4;
  const auto other = Model::Random(spec);
  ASSERT_TRUE(other);
  EXPECT_NE(LogitsOf(*once, ids), LogitsOf(*other, ids));
}

TEST(RandomModel, KeepsActivationsFiniteThroughManyLayers) {
  for (const char* folder : {"gpt-oss-plain-tiny", "qwen3-tiny"}) {
    nlohmann::json config = nlohmann::json::parse(ConfigOf(GoldenModel(folder)));
    config["num_hidden_layers"] = 48;
    config.erase("layer_types");
    for (const char* scheme : {"mxfp4", "nvfp4", "int4-g32-asym", "fp8-channel"}) {
      ModelOptions options;
      options.activation = DType::kBF16;
      const auto model =
          Model::Random({.config_json = config.dump(), .mlp = *SchemeByName(scheme), .attention = *SchemeByName(scheme)}, options);
      ASSERT_TRUE(model) << folder << " " << scheme << ": " << model.error().message();
      double squares = 0;
      const std::vector<float> logits = LogitsOf(*model, {1, 2, 3, 4, 5, 6, 7, 8});
      for (const float logit : logits) squares += double{logit} * logit;
      const double rms = std::sqrt(squares / static_cast<double>(logits.size()));
      EXPECT_GT(rms, 0.1) << folder << " " << scheme;  // false for NaN
      EXPECT_LT(rms, 10) << folder << " " << scheme;
    }
  }
}

TEST(RandomModel, RefusesWhatItCannotMake) {
  const auto error = [](const RandomModel& spec, const ModelOptions& options = {}) {
    const auto model = Model::Random(spec, options);
    return model ? "no error" : std::string(model.error().message());
  };
  EXPECT_THAT(error({}), HasSubstr("no config.json"));
  EXPECT_THAT(error({.config_json = R"({"architectures": ["MambaForCausalLM"]})"}), HasSubstr("MambaForCausalLM"));
  const std::string config = ConfigOf(GoldenModel("qwen3-tiny"));
  EXPECT_THAT(error({.config_json = config}, {.activation = DType::kF16}), HasSubstr("F32 and BF16 are possible"));
  EXPECT_THAT(error({.config_json = config}, {.panel_cache = "/tmp/panels"}), HasSubstr("not kept in /tmp/panels"));
  QuantScheme odd = schemes::kMxfp4;
  odd.group = -1;
  EXPECT_THAT(error({.config_json = config, .mlp = odd}), HasSubstr("model.layers.0.mlp.gate_proj"));
  const auto stopped = Model::Random({.config_json = config}, {.progress = [](const LoadProgress&) { return false; }});
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code(), ErrorCode::kCancelled);
}

}  // namespace
}  // namespace billfish
