#include "model/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>

#include "core/float_formats.h"
#include "core/status_macros.h"
#include "model/checkpoint_identity.h"
#include "model/tensor_source.h"

namespace billfish::model {
namespace {

class Loader {
 public:
  Loader(const TensorSource& source, const Architecture& architecture, const ModelConfig& config, const ModelOptions& options,
         KernelWish& wish, const PanelStore* store)
      : source_(source), architecture_(architecture), config_(config), options_(options), wish_(wish), store_(store) {}

  Result<Layer> LoadLayer(int64_t index);
  Result<Embedding> LoadEmbedding() const;
  Result<FusedLinear> LoadHead() const;

 private:
  struct MatrixName {
    std::string module;
    int64_t N;
    bool needs_bias = false;
  };

  Result<FusedLinear> Fused(const std::string& name, int64_t K, const std::vector<MatrixName>& matrices) const;
  Status LoadAttention(const std::string& prefix, Layer& layer) const;
  Status LoadDense(const std::string& prefix, Layer& layer) const;
  Status LoadExperts(const std::string& prefix, Layer& layer) const;
  Result<MoeLayer> ReadExperts(const std::string& prefix, bool fused, MoeOptions moe) const;
  Result<PackedWeight> ExpertStack(const std::string& prefix, std::string_view pattern, int64_t N, int64_t K) const;
  Result<PackedWeight> FusedStack(const std::string& module, int64_t N, int64_t K) const;
  Result<std::vector<float>> StackBias(const std::string& prefix, std::string_view fused, std::span<const std::string_view> patterns,
                                       int64_t N) const;

  const TensorSource& source_;
  const Architecture& architecture_;
  const ModelConfig& config_;
  const ModelOptions& options_;
  KernelWish& wish_;
  const PanelStore* store_;  // null without panel cache
};

std::string ExpertName(const std::string& prefix, std::string_view pattern, int64_t expert) {
  return prefix + fmt::format(fmt::runtime(pattern), expert);
}

Result<FusedLinear> Loader::Fused(const std::string& name, int64_t K, const std::vector<MatrixName>& matrices) const {
  std::vector<FusedLinear::Part> parts;
  for (const MatrixName& matrix : matrices) {
    FusedLinear::Part part{matrix.module, matrix.N, {}, {}};
    if (matrix.needs_bias || source_.HasTensor(matrix.module + ".bias")) {
      BILLFISH_ASSIGN_OR_RETURN(part.bias, source_.Vector(matrix.module + ".bias", matrix.N));
    }
    parts.push_back(std::move(part));
  }
  if (store_ != nullptr) {
    Result<FusedLinear> mapped = FusedLinear::Map(name, parts, options_, wish_, *store_);
    if (mapped.ok() || mapped.error().code() != ErrorCode::kNotFound) return mapped;
  }
  for (FusedLinear::Part& part : parts) {
    BILLFISH_ASSIGN_OR_RETURN(part.weight, source_.Matrix(part.name, 1, part.N, K));
  }
  return FusedLinear::Create(name, std::move(parts), options_, wish_, store_);
}

Status Loader::LoadAttention(const std::string& prefix, Layer& layer) const {
  const std::string attention = prefix + "self_attn.";
  const bool qkv_bias = architecture_.qkv_bias || config_.attention_bias;
  const bool o_bias = config_.attention_bias && !architecture_.qkv_bias;
  const int64_t kv_rows = config_.kv_heads * config_.head_dim;
  BILLFISH_ASSIGN_OR_RETURN(layer.qkv, Fused(attention + "qkv_proj", config_.hidden,
                                             {{attention + "q_proj", config_.heads * config_.head_dim, qkv_bias},
                                              {attention + "k_proj", kv_rows, qkv_bias},
                                              {attention + "v_proj", kv_rows, qkv_bias}}));
  BILLFISH_ASSIGN_OR_RETURN(
      layer.o, Fused(attention + "o_proj", config_.heads * config_.v_head_dim, {{attention + "o_proj", config_.hidden, o_bias}}));
  if (architecture_.qk_norm) {
    BILLFISH_ASSIGN_OR_RETURN(layer.q_norm, source_.Vector(attention + "q_norm.weight", config_.head_dim));
    BILLFISH_ASSIGN_OR_RETURN(layer.k_norm, source_.Vector(attention + "k_norm.weight", config_.head_dim));
  }
  if (architecture_.sinks) {
    BILLFISH_ASSIGN_OR_RETURN(layer.sinks, source_.Vector(attention + "sinks", config_.heads));
  }
  return OkStatus();
}

Status Loader::LoadDense(const std::string& prefix, Layer& layer) const {
  const std::string mlp = prefix + "mlp.";
  BILLFISH_ASSIGN_OR_RETURN(layer.gate_up, Fused(mlp + "gate_up_proj", config_.hidden,
                                                 {{mlp + "gate_proj", config_.intermediate}, {mlp + "up_proj", config_.intermediate}}));
  BILLFISH_ASSIGN_OR_RETURN(layer.down, Fused(mlp + "down_proj", config_.intermediate, {{mlp + "down_proj", config_.hidden}}));
  return OkStatus();
}

Result<PackedWeight> Loader::ExpertStack(const std::string& prefix, std::string_view pattern, int64_t N, int64_t K) const {
  std::vector<PackedWeight> experts;
  for (int64_t e = 0; e < config_.experts; ++e) {
    BILLFISH_ASSIGN_OR_RETURN(PackedWeight weight, source_.Matrix(ExpertName(prefix, pattern, e), 1, N, K));
    experts.push_back(std::move(weight));
  }
  Result<PackedWeight> stack = PackedWeight::StackExperts(experts);
  if (!stack.ok()) return stack.error().WithContext(ExpertName(prefix, pattern, 0) + " and its siblings");
  return stack;
}

// [E, N, K], or [E, K, N] where the family stores plain stacks transposed.
Result<PackedWeight> Loader::FusedStack(const std::string& module, int64_t N, int64_t K) const {
  if (!architecture_.experts.plain_stacks_transposed || !source_.IsPlain(module)) return source_.Matrix(module, config_.experts, N, K);
  BILLFISH_ASSIGN_OR_RETURN(const PackedWeight stored, source_.Matrix(module, config_.experts, K, N));
  const auto width = static_cast<size_t>(CodeBits(stored.scheme().codes) / 8);
  const std::byte* from = stored.parts().codes.data();
  std::vector<std::byte> codes(stored.parts().codes.size());
  for (int64_t e = 0; e < config_.experts; ++e) {
    for (int64_t k = 0; k < K; ++k) {
      for (int64_t n = 0; n < N; ++n) {
        std::memcpy(codes.data() + static_cast<size_t>((e * N + n) * K + k) * width,
                    from + static_cast<size_t>((e * K + k) * N + n) * width, width);
      }
    }
  }
  WeightParts parts;
  parts.codes = Bytes::Own(std::move(codes));
  return PackedWeight::FromParts(stored.scheme(), config_.experts, N, K, std::move(parts));
}

// Biases of a stack: one tensor "<fused>_bias" [E, N], or one "<module>.bias" per expert and matrix, concatenated. Empty if there are none.
Result<std::vector<float>> Loader::StackBias(const std::string& prefix, std::string_view fused, std::span<const std::string_view> patterns,
                                             int64_t N) const {
  const std::string stacked = prefix + std::string(fused) + "_bias";
  if (source_.HasTensor(stacked)) return source_.Vector(stacked, config_.experts * N);
  const bool single = source_.HasTensor(ExpertName(prefix, patterns.front(), 0) + ".bias");
  std::vector<float> bias;
  if (!single && !architecture_.experts.biased) return bias;
  if (!single) return source_.Vector(stacked, config_.experts * N);  // an error that names the missing tensor
  for (int64_t e = 0; e < config_.experts; ++e) {
    for (const std::string_view pattern : patterns) {
      BILLFISH_ASSIGN_OR_RETURN(const std::vector<float> part,
                                source_.Vector(ExpertName(prefix, pattern, e) + ".bias", N / static_cast<int64_t>(patterns.size())));
      bias.insert(bias.end(), part.begin(), part.end());
    }
  }
  return bias;
}

Status Loader::LoadExperts(const std::string& prefix, Layer& layer) const {
  const ExpertNames& names = architecture_.experts;
  const int64_t E = config_.experts, I = config_.moe_intermediate, H = config_.hidden;
  std::string router_name = prefix + std::string(names.router);
  if (!source_.HasModule(router_name) && source_.HasModule(prefix + "mlp.gate")) router_name = prefix + "mlp.gate";
  BILLFISH_ASSIGN_OR_RETURN(layer.router, Fused(router_name, H, {{router_name, E, names.biased}}));

  const bool fused = !names.gate_up.empty() && source_.HasModule(prefix + std::string(names.gate_up));
  layer.experts_name = prefix + (fused ? std::string(names.gate_up) : std::string(names.gate.substr(0, names.gate.find(".{}"))) + ".*");
  MoeOptions moe{
      .activation = *config_.activation, .activation_dtype = options_.activation, .mode = options_.mode, .device = options_.device};
  if (fused) moe.order = names.fused_order;
  moe.panels = {store_, layer.experts_name};
  const std::string_view gate_up_patterns[] = {names.gate, names.up};
  const std::string_view down_patterns[] = {names.down};
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<float> gate_up_bias, StackBias(prefix, names.gate_up, gate_up_patterns, 2 * I));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<float> down_bias, StackBias(prefix, names.fused_down, down_patterns, H));
  if (!gate_up_bias.empty()) moe.gate_up_bias = ConstTensorView(gate_up_bias.data(), DType::kF32, {E, 2 * I});
  if (!down_bias.empty()) moe.down_bias = ConstTensorView(down_bias.data(), DType::kF32, {E, H});
  if (store_ != nullptr) {
    Result<MoeLayer> mapped = wish_.Grant([&](const std::string& kernel) {
      moe.kernel = kernel;
      return MoeLayer::Map(moe);
    });
    if (mapped.ok()) {
      layer.experts.emplace(std::move(*mapped));
      return OkStatus();
    }
    if (mapped.error().code() != ErrorCode::kNotFound) return mapped.error().WithContext(layer.experts_name);
  }
  BILLFISH_ASSIGN_OR_RETURN(MoeLayer experts, ReadExperts(prefix, fused, moe));
  layer.experts.emplace(std::move(experts));
  return OkStatus();
}

Result<MoeLayer> Loader::ReadExperts(const std::string& prefix, bool fused, MoeOptions moe) const {
  const ExpertNames& names = architecture_.experts;
  const int64_t E = config_.experts, I = config_.moe_intermediate, H = config_.hidden;
  PackedWeight gate_up, down;
  if (fused) {
    BILLFISH_ASSIGN_OR_RETURN(gate_up, FusedStack(prefix + std::string(names.gate_up), 2 * I, H));
    BILLFISH_ASSIGN_OR_RETURN(down, FusedStack(prefix + std::string(names.fused_down), H, I));
  } else {
    BILLFISH_ASSIGN_OR_RETURN(const PackedWeight gate, ExpertStack(prefix, names.gate, I, H));
    BILLFISH_ASSIGN_OR_RETURN(const PackedWeight up, ExpertStack(prefix, names.up, I, H));
    std::vector<PackedWeight> pairs;
    for (int64_t e = 0; e < E; ++e) {
      BILLFISH_ASSIGN_OR_RETURN(const PackedWeight gate_e, gate.Expert(e));
      BILLFISH_ASSIGN_OR_RETURN(const PackedWeight up_e, up.Expert(e));
      const PackedWeight both[] = {gate_e, up_e};
      Result<PackedWeight> pair = PackedWeight::ConcatRows(both);
      if (!pair.ok()) return pair.error().WithContext(ExpertName(prefix, names.gate, e) + " and its up projection");
      pairs.push_back(std::move(*pair));
    }
    BILLFISH_ASSIGN_OR_RETURN(gate_up, PackedWeight::StackExperts(pairs));
    BILLFISH_ASSIGN_OR_RETURN(down, ExpertStack(prefix, names.down, H, I));
  }
  Result<MoeLayer> experts = wish_.Grant([&](const std::string& kernel) {
    moe.kernel = kernel;
    return MoeLayer::Create(gate_up, down, moe);
  });
  if (!experts.ok()) return experts.error().WithContext(moe.panels.name);
  return experts;
}

Result<Layer> Loader::LoadLayer(int64_t index) {
  const std::string prefix = fmt::format("model.layers.{}.", index);
  Layer layer;
  layer.config = config_.layers[static_cast<size_t>(index)];
  BILLFISH_ASSIGN_OR_RETURN(layer.attention_norm, source_.Vector(prefix + "input_layernorm.weight", config_.hidden));
  BILLFISH_ASSIGN_OR_RETURN(layer.mlp_norm, source_.Vector(prefix + "post_attention_layernorm.weight", config_.hidden));
  BILLFISH_RETURN_IF_ERROR(LoadAttention(prefix, layer));
  BILLFISH_RETURN_IF_ERROR(layer.config.moe ? LoadExperts(prefix, layer) : LoadDense(prefix, layer));
  return layer;
}

Result<Embedding> Loader::LoadEmbedding() const {
  BILLFISH_ASSIGN_OR_RETURN(const PackedWeight weight, source_.Matrix("model.embed_tokens", 1, config_.vocab, config_.hidden));
  Embedding embedding{config_.vocab, config_.hidden, {}, {}};
  const auto count = static_cast<size_t>(config_.vocab * config_.hidden);
  if (weight.scheme().codes == CodeBook::kBF16) {
    embedding.bf16.resize(count);
    std::memcpy(embedding.bf16.data(), weight.parts().codes.data(), count * sizeof(uint16_t));
  } else {
    embedding.f32.resize(count);
    BILLFISH_RETURN_IF_ERROR(weight.Dequantize({embedding.f32.data(), DType::kF32, {config_.vocab, config_.hidden}}));
  }
  return embedding;
}

Result<FusedLinear> Loader::LoadHead() const {
  const std::string module = config_.tied_embeddings || !source_.HasModule("lm_head") ? "model.embed_tokens" : "lm_head";
  if (module != "lm_head" && !config_.tied_embeddings) {
    return Status(ErrorCode::kNotFound, "lm_head.weight is missing, and config.json does not tie it to the embedding");
  }
  return Fused(module, config_.hidden, {{module, config_.vocab}});
}

std::string ReadOptionalText(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  if (in) text << in.rdbuf();
  return text.str();
}

void Summarise(const Layer& layer, std::vector<ModuleSummary>& modules) {
  layer.qkv.Summarise(modules);
  layer.o.Summarise(modules);
  if (!layer.experts) {
    layer.gate_up.Summarise(modules);
    layer.down.Summarise(modules);
    return;
  }
  layer.router->Summarise(modules);
  const auto add = [&](const char* part, const MatrixInfo& matrix) {
    modules.push_back({layer.experts_name + part, matrix.scheme.Name(), std::string(matrix.kernel), matrix.E, matrix.N, matrix.K,
                       matrix.bytes, matrix.weight_bytes});
  };
  add(" gate|up", layer.experts->gate_up());
  add(" down", layer.experts->down());
}

Result<LoadedModel> BuildModel(const TensorSource& source, const ResolvedModel& resolved, const ModelOptions& options,
                               const PanelStore* store) {
  LoadedModel model;
  model.config = resolved.config;
  KernelWish wish(options.kernel);
  Loader loader(source, *resolved.architecture, model.config, options, wish, store);
  BILLFISH_ASSIGN_OR_RETURN(model.embedding, loader.LoadEmbedding());
  LoadProgress progress;
  progress.layers = static_cast<int64_t>(model.config.layers.size());
  for (int64_t index = 0; index < progress.layers; ++index) {
    BILLFISH_ASSIGN_OR_RETURN(Layer layer, loader.LoadLayer(index));
    Summarise(layer, model.modules);
    model.layers.push_back(std::move(layer));
    progress.layers_done = index + 1;
    progress.bytes = 0;
    for (const ModuleSummary& module : model.modules) progress.bytes += module.bytes;
    if (options.progress && !options.progress(progress)) {
      return Status(ErrorCode::kCancelled, fmt::format("loading stopped after layer {} of {}", index + 1, progress.layers));
    }
  }
  BILLFISH_ASSIGN_OR_RETURN(model.final_norm, source.Vector("model.norm.weight", model.config.hidden));
  BILLFISH_ASSIGN_OR_RETURN(model.lm_head, loader.LoadHead());
  model.lm_head.Summarise(model.modules);
  BILLFISH_RETURN_IF_ERROR(wish.Verdict());
  if (store) model.panel_cache = store->report();
  return model;
}

}  // namespace

void Embedding::Row(int32_t id, float* out) const {
  const int64_t begin = int64_t{id} * hidden;
  if (bf16.empty()) {
    std::copy_n(f32.data() + begin, hidden, out);
  } else {
    for (int64_t i = 0; i < hidden; ++i) out[i] = F32FromBF16(bf16[static_cast<size_t>(begin + i)]);
  }
}

Result<LoadedModel> LoadModel(const std::filesystem::path& path, const ModelOptions& options) {
  BILLFISH_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(path));
  BILLFISH_ASSIGN_OR_RETURN(const ResolvedModel resolved,
                            ResolveModel(checkpoint.config_json(), ReadOptionalText(path / "generation_config.json")));
  std::optional<PanelStore> store;
  if (!options.panel_cache.empty() && options.device.kind == Device::Kind::kCpu) store.emplace(options.panel_cache, IdentityOf(checkpoint));
  return BuildModel(CheckpointSource(checkpoint), resolved, options, store ? &*store : nullptr);
}

Result<LoadedModel> MakeRandomModel(const RandomModel& spec, const ModelOptions& options) {
  if (!options.panel_cache.empty()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("random weights are made anew each time and not kept in {}; leave ModelOptions::panel_cache empty",
                              options.panel_cache.string()));
  }
  BILLFISH_ASSIGN_OR_RETURN(const ResolvedModel resolved, ResolveModel(spec.config_json, ""));
  return BuildModel(RandomSource(spec, *resolved.architecture), resolved, options, nullptr);
}

}  // namespace billfish::model
