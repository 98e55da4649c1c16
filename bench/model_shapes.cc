#include "model_shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace billfish::bench {
namespace {

struct Shape {
  std::string_view name;
  std::string_view config;
};

/// The fields that decide shapes and arithmetic, as published with each model.
constexpr std::array<Shape, 3> kShapes = {{
    {"qwen3-30b-a3b", R"({
      "architectures": ["Qwen3MoeForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-6,
      "vocab_size": 151936, "hidden_size": 2048, "num_hidden_layers": 48, "tie_word_embeddings": false,
      "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "attention_bias": false,
      "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
      "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
      "max_position_embeddings": 40960, "rope_theta": 1000000.0, "use_sliding_window": false})"},
    {"gpt-oss-20b", R"({
      "architectures": ["GptOssForCausalLM"], "rms_norm_eps": 1e-5,
      "vocab_size": 201088, "hidden_size": 2880, "num_hidden_layers": 24, "tie_word_embeddings": false,
      "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "attention_bias": true, "sliding_window": 128,
      "intermediate_size": 2880, "num_local_experts": 32, "num_experts_per_tok": 4, "swiglu_limit": 7.0,
      "max_position_embeddings": 131072, "rope_theta": 150000.0,
      "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096,
                       "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false}})"},
    {"tiny", R"({
      "architectures": ["Qwen3MoeForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-6,
      "vocab_size": 4096, "hidden_size": 256, "num_hidden_layers": 4, "tie_word_embeddings": false,
      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "attention_bias": false,
      "intermediate_size": 512, "moe_intermediate_size": 128, "num_experts": 16, "num_experts_per_tok": 4,
      "norm_topk_prob": true, "max_position_embeddings": 2048, "rope_theta": 10000.0})"},
}};

}  // namespace

std::vector<std::string> ModelShapeNames() {
  std::vector<std::string> names;
  names.reserve(kShapes.size());
  for (const Shape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

Result<std::string> ShapeConfig(std::string_view name, int64_t layers) {
  const auto shape = std::find_if(kShapes.begin(), kShapes.end(), [&](const Shape& known) { return known.name == name; });
  if (shape == kShapes.end()) {
    std::string known;
    for (const Shape& other : kShapes) known.append(known.empty() ? "" : ", ").append(other.name);
    return Status(ErrorCode::kInvalidArgument, fmt::format("there is no shape '{}'; give one of {}", name, known));
  }
  nlohmann::json config = nlohmann::json::parse(shape->config);
  const auto all = config["num_hidden_layers"].get<int64_t>();
  if (layers < 0 || layers > all)
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} layers of {} were asked for, which has {}", layers, name, all));
  if (layers > 0) config["num_hidden_layers"] = layers;
  return config.dump();
}

}  // namespace billfish::bench
