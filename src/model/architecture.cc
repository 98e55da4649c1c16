#include "model/architecture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/status_macros.h"
#include "model/rope.h"

namespace billfish::model {
namespace {

constexpr std::array<const Architecture*, 6> kArchitectures = {&kLlama, &kQwen2, &kQwen3, &kMixtral, &kQwen3Moe, &kGptOss};
constexpr int64_t kMostLayers = 4096;

Result<nlohmann::json> ParseObject(const std::string& text, const char* file) {
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) return Status(ErrorCode::kCorruptFile, fmt::format("{} must hold a JSON object", file));
  return json;
}

Result<const Architecture*> FindArchitecture(const ConfigReader& json) {
  const nlohmann::json& names = json.Get("architectures");
  if (!names.is_array() || names.empty() || !names.front().is_string()) return json.Wrong("architectures", "a list with one name");
  const auto& name = names.front().get_ref<const std::string&>();
  const auto it = std::find_if(kArchitectures.begin(), kArchitectures.end(), [&](const Architecture* a) { return a->name == name; });
  if (it != kArchitectures.end()) return *it;
  std::string known;
  for (const Architecture* architecture : kArchitectures) known.append(known.empty() ? "" : ", ").append(architecture->name);
  return Status(ErrorCode::kUnsupported, fmt::format("config.json names the architecture {}; billfish runs {}", name, known));
}

Status ReadEosIds(const ConfigReader& json, ModelConfig& config) {
  const nlohmann::json& value = json.Get("eos_token_id");
  const nlohmann::json list = value.is_array() ? value : value.is_null() ? nlohmann::json::array() : nlohmann::json::array({value});
  for (const nlohmann::json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(config.vocab)) {
      return json.Wrong("eos_token_id", "a token id or a list of them, below vocab_size");
    }
    config.eos_ids.push_back(id.get<int32_t>());
  }
  return OkStatus();
}

Status ReadCommon(const ConfigReader& json, ModelConfig& config) {
  BILLFISH_ASSIGN_OR_RETURN(config.vocab, json.Int("vocab_size", 1));
  BILLFISH_ASSIGN_OR_RETURN(config.hidden, json.Int("hidden_size", 1));
  BILLFISH_ASSIGN_OR_RETURN(config.heads, json.Int("num_attention_heads", 1));
  BILLFISH_ASSIGN_OR_RETURN(config.kv_heads, json.Int("num_key_value_heads", 1, config.heads));
  if (config.heads % config.kv_heads != 0) return json.Wrong("num_key_value_heads", "a divisor of num_attention_heads");
  BILLFISH_ASSIGN_OR_RETURN(config.head_dim, json.Int("head_dim", 2, config.hidden / config.heads));
  if (config.head_dim % 2 != 0 || config.head_dim < 2) return json.Wrong("head_dim", "even");
  config.v_head_dim = config.head_dim;
  BILLFISH_ASSIGN_OR_RETURN(config.intermediate, json.Int("intermediate_size", 1));
  BILLFISH_ASSIGN_OR_RETURN(config.max_position, json.Int("max_position_embeddings", 1));
  BILLFISH_ASSIGN_OR_RETURN(config.tied_embeddings, json.Bool("tie_word_embeddings", false));
  BILLFISH_ASSIGN_OR_RETURN(config.attention_bias, json.Bool("attention_bias", false));
  BILLFISH_ASSIGN_OR_RETURN(const double eps, json.Number("rms_norm_eps"));
  config.norm_eps = static_cast<float>(eps);
  if (!(config.norm_eps > 0)) return json.Wrong("rms_norm_eps", "positive");
  BILLFISH_ASSIGN_OR_RETURN(const int64_t layers, json.Int("num_hidden_layers", 1));
  if (layers > kMostLayers) return json.Wrong("num_hidden_layers", fmt::format("at most {}", kMostLayers));
  config.layers.resize(static_cast<size_t>(layers));
  BILLFISH_ASSIGN_OR_RETURN(config.rope, ReadRope(json, config.head_dim));
  if (json.Has("bos_token_id") && json.Get("bos_token_id").is_number_unsigned()) {
    BILLFISH_ASSIGN_OR_RETURN(const int64_t bos, json.Int("bos_token_id", 0));
    config.bos_id = static_cast<int32_t>(bos);
  }
  return ReadEosIds(json, config);
}

}  // namespace

std::span<const Architecture* const> Architectures() { return kArchitectures; }

Result<ResolvedModel> ResolveModel(const std::string& config_json, const std::string& generation_json) {
  if (config_json.empty()) return Status(ErrorCode::kNotFound, "the folder has no config.json, which names the architecture and its sizes");
  BILLFISH_ASSIGN_OR_RETURN(const nlohmann::json json, ParseObject(config_json, "config.json"));
  const ConfigReader reader(json);
  ResolvedModel model;
  BILLFISH_ASSIGN_OR_RETURN(model.architecture, FindArchitecture(reader));
  model.config.architecture = model.architecture->name;
  BILLFISH_RETURN_IF_ERROR(ReadCommon(reader, model.config));
  BILLFISH_RETURN_IF_ERROR(model.architecture->configure(reader, model.config));
  if (model.config.router) BILLFISH_RETURN_IF_ERROR(model.config.router->Validate().WithContext("config.json"));
  if (!generation_json.empty()) {
    BILLFISH_ASSIGN_OR_RETURN(const nlohmann::json generation, ParseObject(generation_json, "generation_config.json"));
    BILLFISH_RETURN_IF_ERROR(ReadEosIds(ConfigReader(generation, "generation_config.json"), model.config));
  }
  std::vector<int32_t>& eos = model.config.eos_ids;
  std::sort(eos.begin(), eos.end());
  eos.erase(std::unique(eos.begin(), eos.end()), eos.end());
  return model;
}

Status RequireSilu(const ConfigReader& json) {
  BILLFISH_ASSIGN_OR_RETURN(const std::string activation, json.Text("hidden_act", "silu"));
  if (activation == "silu" || activation == "swish") return OkStatus();
  return {ErrorCode::kUnsupported,
          fmt::format("config.json: the activation \"{}\" is not implemented for this architecture; silu is", activation)};
}

Status ReadWindows(const ConfigReader& json, WindowRule rule, ModelConfig& config) {
  if (!json.Has("sliding_window")) return OkStatus();
  BILLFISH_ASSIGN_OR_RETURN(const int64_t window, json.Int("sliding_window", 1));
  const nlohmann::json& types = json.Get("layer_types");
  if (types.is_null()) {
    BILLFISH_ASSIGN_OR_RETURN(const int64_t full_layers, json.Int("max_window_layers", 0, 28));
    for (size_t i = 0; i < config.layers.size(); ++i) {
      const bool slides = rule == WindowRule::kAll || (rule == WindowRule::kEvenLayers && i % 2 == 0) ||
                          (rule == WindowRule::kLateLayers && static_cast<int64_t>(i) >= full_layers);
      if (slides) config.layers[i].window = window;
    }
    return OkStatus();
  }
  if (!types.is_array() || types.size() != config.layers.size()) return json.Wrong("layer_types", "a list with one name per layer");
  for (size_t i = 0; i < config.layers.size(); ++i) {
    if (types[i] == "sliding_attention") {
      config.layers[i].window = window;
    } else if (types[i] != "full_attention") {
      return json.Wrong("layer_types", "made of full_attention and sliding_attention");
    }
  }
  return OkStatus();
}

}  // namespace billfish::model

namespace billfish {

std::span<const std::string_view> SupportedArchitectures() {
  static const std::vector<std::string_view> names = [] {
    std::vector<std::string_view> all;
    for (const model::Architecture* architecture : model::Architectures()) all.push_back(architecture->name);
    return all;
  }();
  return names;
}

}  // namespace billfish
