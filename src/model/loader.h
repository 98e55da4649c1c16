// Turns a checkpoint into the layers of a model: finds each tensor by its architecture's name, checks its shape, packs it.
#pragma once

#include <optional>
#include <vector>

#include "billfish/checkpoint.h"
#include "model/architecture.h"
#include "model/fused_linear.h"

namespace billfish::model {

struct Layer {
  LayerConfig config;
  std::vector<float> attention_norm, mlp_norm;  ///< [hidden]
  std::vector<float> q_norm, k_norm;            ///< [head_dim] or empty
  std::vector<float> sinks;                     ///< [heads] or empty
  FusedLinear qkv, o;
  FusedLinear gate_up, down;          ///< dense layers
  std::optional<FusedLinear> router;  ///< MoE layers
  std::optional<MoeLayer> experts;
  std::string experts_name;
};

/// Rows of the embedding: bf16 where that is what the file holds, else fp32.
struct Embedding {
  int64_t vocab = 0, hidden = 0;
  std::vector<uint16_t> bf16;
  std::vector<float> f32;
  void Row(int32_t id, float* out) const;
};

struct LoadedModel {
  ModelConfig config;
  Embedding embedding;
  std::vector<Layer> layers;
  std::vector<float> final_norm;
  FusedLinear lm_head;
  std::vector<ModuleSummary> modules;
  PanelStore::Report panel_cache;
};

Result<LoadedModel> LoadModel(const std::filesystem::path& path, const ModelOptions& options);
/// The same with random numbers instead of a checkpoint; takes the same way into the same kernels.
Result<LoadedModel> MakeRandomModel(const RandomModel& spec, const ModelOptions& options);

}  // namespace billfish::model
