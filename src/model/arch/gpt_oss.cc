// gpt-oss: alternating sliding windows, attention sinks, softmax over the top-k logits, clamped SwiGLU with gate and up rows interleaved.
#include "core/status_macros.h"
#include "model/architecture.h"

namespace billfish::model {
namespace {

Status Configure(const ConfigReader& json, ModelConfig& config) {
  BILLFISH_RETURN_IF_ERROR(ReadWindows(json, WindowRule::kEvenLayers, config));
  BILLFISH_ASSIGN_OR_RETURN(config.experts, json.Int("num_local_experts", 1));
  const char* top_k_key = json.Has("num_experts_per_tok") ? "num_experts_per_tok" : "experts_per_token";
  BILLFISH_ASSIGN_OR_RETURN(config.top_k, json.Int(top_k_key, 1));
  config.moe_intermediate = config.intermediate;
  config.router = RouterRule{.score = RouterRule::Score::kTopKSoftmax, .E = config.experts, .top_k = config.top_k};
  // beta is a constant of the architecture; older config.json have neither limit nor alpha, which were constants then.
  BILLFISH_ASSIGN_OR_RETURN(const double limit, json.Number("swiglu_limit", 7.0));
  if (limit <= 0) return json.Wrong("swiglu_limit", "positive");
  BILLFISH_ASSIGN_OR_RETURN(const double alpha, json.Number("swiglu_alpha", 1.702));
  if (alpha <= 0) return json.Wrong("swiglu_alpha", "positive");
  config.activation = Activation{
      .kind = Activation::Kind::kSwigluOai, .limit = static_cast<float>(limit), .alpha = static_cast<float>(alpha), .beta = 1.0f};
  for (LayerConfig& layer : config.layers) layer.moe = true;
  return OkStatus();
}

}  // namespace

const Architecture kGptOss = {
    .name = "GptOssForCausalLM",
    .sinks = true,
    .experts = {.router = "mlp.router",
                .gate = "mlp.experts.{}.gate_proj",
                .up = "mlp.experts.{}.up_proj",
                .down = "mlp.experts.{}.down_proj",
                .gate_up = "mlp.experts.gate_up_proj",
                .fused_down = "mlp.experts.down_proj",
                .fused_order = GateUpOrder::kInterleaved,
                .plain_stacks_transposed = true,
                .biased = true},
    .configure = Configure,
};

}  // namespace billfish::model
