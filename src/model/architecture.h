// An architecture: what a family of models calls its tensors and how its configuration is read. One file a family under arch/.
#pragma once

#include <span>
#include <string_view>

#include "billfish/model.h"
#include "model/config_reader.h"

namespace billfish::model {

/// Names below "model.layers.L." of a Mixture-of-Experts block; {} stands for the expert. Empty = the family has none.
struct ExpertNames {
  std::string_view router;
  std::string_view gate, up, down;       ///< one module per expert
  std::string_view gate_up, fused_down;  ///< or stacks [E, 2I, H] and [E, H, I]
  GateUpOrder fused_order = GateUpOrder::kConcatenated;
  bool plain_stacks_transposed = false;  ///< unquantised stacks are stored [E, H, 2I] and [E, I, H]
  bool biased = false;                   ///< router and experts must have biases; elsewhere they are read where they are present
};

struct Architecture {
  std::string_view name;  ///< as in `architectures` of config.json
  bool qk_norm = false;   ///< self_attn.q_norm and k_norm, one weight per value of a head
  bool sinks = false;     ///< self_attn.sinks, one score per head
  bool qkv_bias = false;  ///< q, k and v must have biases; elsewhere as attention_bias of config.json says
  ExpertNames experts;
  /// Fills the fields that only this family has: windows, experts, router, activation. The common ones are there already.
  Status (*configure)(const ConfigReader& json, ModelConfig& config);
};

extern const Architecture kLlama, kQwen2, kQwen3, kMixtral, kQwen3Moe, kGptOss;

std::span<const Architecture* const> Architectures();

/// config.json and generation_config.json (may be empty) -> the architecture and its configuration.
struct ResolvedModel {
  const Architecture* architecture;
  ModelConfig config;
};
Result<ResolvedModel> ResolveModel(const std::string& config_json, const std::string& generation_json);

// Shared by the families' configure functions.
Status RequireSilu(const ConfigReader& json);
/// Which layers have the window of sliding_window where config.json has no layer_types.
enum class WindowRule : uint8_t {
  kAll,
  kLateLayers,  ///< from max_window_layers (28 if absent) on
  kEvenLayers,
};
Status ReadWindows(const ConfigReader& json, WindowRule rule, ModelConfig& config);

}  // namespace billfish::model
