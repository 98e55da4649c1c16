#include "billfish/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/status_macros.h"
#include "model/forward.h"
#include "model/kv_cache.h"
#include "model/loader.h"
#include "model/rope.h"

namespace billfish {

struct Model::Impl {
  model::LoadedModel loaded;
  std::vector<float> frequencies;
  DType activation = DType::kF32;
  int64_t max_context = 0;
};

Model::Model() = default;
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

Result<Model> Model::Load(const std::filesystem::path& path, const ModelOptions& options) {
  if (options.activation != DType::kF32 && options.activation != DType::kBF16) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} activations were asked for; F32 and BF16 are possible", DTypeName(options.activation)));
  }
  constexpr int64_t kLongest = std::numeric_limits<int32_t>::max();
  if (options.max_context < 0 || options.max_context > kLongest) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("max_context is {}; it must be from 0 to {}", options.max_context, kLongest));
  }
  Model model;
  model.impl_ = std::make_unique<Impl>();
  BILLFISH_ASSIGN_OR_RETURN(model.impl_->loaded, model::LoadModel(path, options));
  const ModelConfig& config = model.impl_->loaded.config;
  model.impl_->frequencies = model::RopeFrequencies(config.rope);
  model.impl_->activation = options.activation;
  model.impl_->max_context = options.max_context > 0 ? options.max_context : config.max_position;
  return model;
}

const ModelConfig& Model::config() const { return impl_->loaded.config; }

int64_t Model::max_context() const { return impl_->max_context; }

std::span<const ModuleSummary> Model::modules() const { return impl_->loaded.modules; }

const PanelStore::Report& Model::panel_cache() const { return impl_->loaded.panel_cache; }

Result<KvCache> Model::NewCache(int64_t max_tokens) const {
  if (max_tokens < 1 || max_tokens > impl_->max_context) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a cache for {} tokens was asked for; this model takes 1 to {}", max_tokens, impl_->max_context));
  }
  const ModelConfig& config = impl_->loaded.config;
  KvCache cache;
  cache.impl_ = std::make_unique<KvCache::Impl>();
  cache.impl_->owner = impl_.get();
  cache.impl_->layers = static_cast<int64_t>(config.layers.size());
  cache.impl_->kv_heads = config.kv_heads;
  cache.impl_->head_dim = config.head_dim;
  cache.impl_->v_dim = config.v_head_dim;
  cache.impl_->max_tokens = max_tokens;
  BILLFISH_RETURN_IF_ERROR(cache.impl_->Allocate());
  return cache;
}

Status Model::Forward(std::span<const int32_t> ids, KvCache& cache, TensorView logits, ExecContext& ctx) const {
  const ModelConfig& config = impl_->loaded.config;
  const auto T = static_cast<int64_t>(ids.size());
  KvCache::Impl* state = cache.impl_.get();
  if (state == nullptr || state->owner != impl_.get())
    return {ErrorCode::kInvalidArgument, "the cache belongs to another model; make one with NewCache"};
  if (T == 0) return {ErrorCode::kInvalidArgument, "no token ids were given; at least one is needed"};
  if (state->length + T > state->max_tokens) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{} tokens were given and the cache holds {} of at most {}; make a larger cache or start anew", T, state->length,
                        state->max_tokens)};
  }
  for (int64_t i = 0; i < T; ++i) {
    const int32_t id = ids[static_cast<size_t>(i)];
    if (id < 0 || id >= config.vocab) {
      return {ErrorCode::kInvalidArgument, fmt::format("token id {} at place {} is outside the vocabulary of {}", id, i, config.vocab)};
    }
  }
  const bool wanted = logits.data() != nullptr;
  if (wanted && (logits.dtype() != DType::kF32 || logits.rank() != 2 || logits.dim(1) != config.vocab ||
                 (logits.dim(0) != T && logits.dim(0) != 1))) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("logits are {}; they must be f32[{}, {}] or f32[1, {}]", logits.ToString(), T, config.vocab, config.vocab)};
  }
  const int64_t before = state->length;
  const bool all = wanted && logits.dim(0) == T;
  for (int64_t begin = 0; begin < T; begin += kPrefillChunk) {
    const int64_t count = std::min(kPrefillChunk, T - begin);
    TensorView rows;
    if (all) {
      rows = TensorView(logits.as<float>() + begin * logits.stride(0), DType::kF32, {count, config.vocab});
      rows.set_strides(logits.strides());
    } else if (wanted && begin + count == T) {
      rows = logits;
    }
    Status status =
        model::ForwardChunk(impl_->loaded, impl_->frequencies, ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), *state,
                            rows, impl_->activation, ctx);
    if (!status.ok()) {
      state->length = before;
      return status;
    }
    state->length += count;
  }
  return OkStatus();
}

}  // namespace billfish
