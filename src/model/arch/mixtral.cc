// Mixtral: softmax over all experts, top-k, renormalised; w1 is gate, w3 up, w2 down.
#include "core/status_macros.h"
#include "model/architecture.h"

namespace billfish::model {
namespace {

Status Configure(const ConfigReader& json, ModelConfig& config) {
  BILLFISH_RETURN_IF_ERROR(RequireSilu(json));
  BILLFISH_RETURN_IF_ERROR(ReadWindows(json, WindowRule::kAll, config));
  BILLFISH_ASSIGN_OR_RETURN(config.experts, json.Int("num_local_experts", 1));
  BILLFISH_ASSIGN_OR_RETURN(config.top_k, json.Int("num_experts_per_tok", 1));
  config.moe_intermediate = config.intermediate;
  config.router = RouterRule{.score = RouterRule::Score::kSoftmax, .E = config.experts, .top_k = config.top_k, .renormalize = true};
  config.activation = Activation{.kind = Activation::Kind::kSwiglu};
  for (LayerConfig& layer : config.layers) layer.moe = true;
  return OkStatus();
}

}  // namespace

const Architecture kMixtral = {
    .name = "MixtralForCausalLM",
    .experts = {.router = "block_sparse_moe.gate",
                .gate = "block_sparse_moe.experts.{}.w1",
                .up = "block_sparse_moe.experts.{}.w3",
                .down = "block_sparse_moe.experts.{}.w2",
                .gate_up = "mlp.experts.gate_up_proj",
                .fused_down = "mlp.experts.down_proj"},
    .configure = Configure,
};

}  // namespace billfish::model
