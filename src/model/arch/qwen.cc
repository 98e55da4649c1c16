// Qwen2 (biases on q, k, v), Qwen3 (norms on q and k) and Qwen3-MoE.
#include "core/status_macros.h"
#include "model/architecture.h"

namespace billfish::model {
namespace {

Status ConfigureCommon(const ConfigReader& json, WindowRule rule, ModelConfig& config) {
  BILLFISH_RETURN_IF_ERROR(RequireSilu(json));
  BILLFISH_ASSIGN_OR_RETURN(const bool use_window, json.Bool("use_sliding_window", false));
  return use_window ? ReadWindows(json, rule, config) : OkStatus();
}

Status ConfigureDense(const ConfigReader& json, ModelConfig& config) { return ConfigureCommon(json, WindowRule::kLateLayers, config); }

Status ConfigureMoe(const ConfigReader& json, ModelConfig& config) {
  BILLFISH_RETURN_IF_ERROR(ConfigureCommon(json, WindowRule::kAll, config));
  const char* experts_key = json.Has("num_experts") ? "num_experts" : "num_local_experts";
  BILLFISH_ASSIGN_OR_RETURN(config.experts, json.Int(experts_key, 1));
  BILLFISH_ASSIGN_OR_RETURN(config.top_k, json.Int("num_experts_per_tok", 1));
  BILLFISH_ASSIGN_OR_RETURN(config.moe_intermediate, json.Int("moe_intermediate_size", 1));
  BILLFISH_ASSIGN_OR_RETURN(const bool renormalize, json.Bool("norm_topk_prob", false));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t step, json.Int("decoder_sparse_step", 1, 1));
  config.router = RouterRule{.score = RouterRule::Score::kSoftmax, .E = config.experts, .top_k = config.top_k, .renormalize = renormalize};
  config.activation = Activation{.kind = Activation::Kind::kSwiglu};
  for (size_t layer = 0; layer < config.layers.size(); ++layer) config.layers[layer].moe = (static_cast<int64_t>(layer) + 1) % step == 0;
  const nlohmann::json& dense = json.Get("mlp_only_layers");
  if (dense.is_null()) return OkStatus();
  if (!dense.is_array()) return json.Wrong("mlp_only_layers", "a list of layer numbers");
  for (const nlohmann::json& layer : dense) {
    if (!layer.is_number_unsigned() || layer.get<uint64_t>() >= config.layers.size())
      return json.Wrong("mlp_only_layers", "a list of layer numbers");
    config.layers[layer.get<size_t>()].moe = false;
  }
  return OkStatus();
}

}  // namespace

const Architecture kQwen2 = {.name = "Qwen2ForCausalLM", .qkv_bias = true, .experts = {}, .configure = ConfigureDense};

const Architecture kQwen3 = {.name = "Qwen3ForCausalLM", .qk_norm = true, .experts = {}, .configure = ConfigureDense};

const Architecture kQwen3Moe = {
    .name = "Qwen3MoeForCausalLM",
    .qk_norm = true,
    .experts = {.router = "mlp.gate",
                .gate = "mlp.experts.{}.gate_proj",
                .up = "mlp.experts.{}.up_proj",
                .down = "mlp.experts.{}.down_proj",
                .gate_up = "mlp.experts.gate_up_proj",
                .fused_down = "mlp.experts.down_proj"},
    .configure = ConfigureMoe,
};

}  // namespace billfish::model
