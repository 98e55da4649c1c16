#include "billfish/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "billfish/generate.h"
#include "core/median.h"
#include "core/status_macros.h"
#include "model/cuda_runner.h"
#include "model/forward.h"
#include "model/kv_cache.h"
#include "model/loader.h"
#include "model/rope.h"

namespace billfish {

struct Model::Impl {
  model::LoadedModel loaded;
  std::vector<float> frequencies;
  DType activation = DType::kF32;
  Device device;
  int64_t max_context = 0;
  std::unique_ptr<model::CudaRunner> gpu;  ///< null on a CPU
};

namespace {

Status CheckOptions(const ModelOptions& options) {
  if (options.activation != DType::kF32 && options.activation != DType::kBF16) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{} activations were asked for; F32 and BF16 are possible", DTypeName(options.activation))};
  }
  if (options.device.kind == Device::Kind::kCuda && options.activation != DType::kBF16) {
    return {ErrorCode::kInvalidArgument, fmt::format("{} activations were asked for on a GPU; its matrices read BF16, set "
                                                     "ModelOptions::activation to it",
                                                     DTypeName(options.activation))};
  }
  constexpr int64_t kLongest = std::numeric_limits<int32_t>::max();
  if (options.max_context < 0 || options.max_context > kLongest) {
    return {ErrorCode::kInvalidArgument, fmt::format("max_context is {}; it must be from 0 to {}", options.max_context, kLongest)};
  }
  return OkStatus();
}

// What both kinds of forward call require of a cache and of ids.
Status CheckCall(const ModelConfig& config, const void* owner, std::span<const int32_t> ids, const KvCache::Impl* state) {
  const auto T = static_cast<int64_t>(ids.size());
  if (state == nullptr || state->owner != owner)
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
  return OkStatus();
}

Status CheckLogits(const TensorView& logits, int64_t T, int64_t vocab, Device device) {
  if (logits.data() == nullptr) return OkStatus();
  if (logits.dtype() != DType::kF32 || logits.rank() != 2 || logits.dim(1) != vocab || (logits.dim(0) != T && logits.dim(0) != 1)) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("logits are {}; they must be f32[{}, {}] or f32[1, {}]", logits.ToString(), T, vocab, vocab)};
  }
  if (logits.device().kind == Device::Kind::kCpu || logits.device() == device) return OkStatus();
  return {ErrorCode::kInvalidArgument,
          fmt::format("logits lie on cuda:{} and the model on {}; give memory of the host or of the model's device", logits.device().index,
                      device.kind == Device::Kind::kCpu ? std::string("the cpu") : fmt::format("cuda:{}", device.index))};
}

}  // namespace

Model::Model() = default;
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

Result<Model> Model::Load(const std::filesystem::path& path, const ModelOptions& options) {
  BILLFISH_RETURN_IF_ERROR(CheckOptions(options));
  auto impl = std::make_unique<Impl>();
  BILLFISH_ASSIGN_OR_RETURN(impl->loaded, model::LoadModel(path, options));
  return Finish(std::move(impl), options);
}

Result<Model> Model::Random(const RandomModel& spec, const ModelOptions& options) {
  BILLFISH_RETURN_IF_ERROR(CheckOptions(options));
  auto impl = std::make_unique<Impl>();
  BILLFISH_ASSIGN_OR_RETURN(impl->loaded, model::MakeRandomModel(spec, options));
  return Finish(std::move(impl), options);
}

Result<Model> Model::Finish(std::unique_ptr<Impl> impl, const ModelOptions& options) {
  Model model;
  model.impl_ = std::move(impl);
  const ModelConfig& config = model.impl_->loaded.config;
  model.impl_->frequencies = model::RopeFrequencies(config.rope);
  model.impl_->device = options.device;
  if (options.device.kind == Device::Kind::kCuda) {
    BILLFISH_ASSIGN_OR_RETURN(
        model.impl_->gpu, model::CudaRunner::Create(model.impl_->loaded, model.impl_->frequencies, options.device, options.record_decode));
  }
  model.impl_->activation = options.activation;
  model.impl_->max_context = options.max_context > 0 ? options.max_context : config.max_position;
  return model;
}

const ModelConfig& Model::config() const { return impl_->loaded.config; }

Device Model::device() const { return impl_->device; }

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
  if (impl_->gpu == nullptr) {
    BILLFISH_RETURN_IF_ERROR(cache.impl_->Allocate());
    return cache;
  }
  BILLFISH_ASSIGN_OR_RETURN(model::CudaCache on_device, impl_->gpu->NewCache(max_tokens));
  cache.impl_->bytes = on_device.memory.bytes();
  cache.impl_->cuda = std::make_shared<model::CudaCache>(std::move(on_device));
  return cache;
}

Status Model::Forward(std::span<const int32_t> ids, KvCache& cache, TensorView logits, ExecContext& ctx) const {
  const ModelConfig& config = impl_->loaded.config;
  const auto T = static_cast<int64_t>(ids.size());
  KvCache::Impl* state = cache.impl_.get();
  BILLFISH_RETURN_IF_ERROR(CheckCall(config, impl_.get(), ids, state));
  BILLFISH_RETURN_IF_ERROR(CheckLogits(logits, T, config.vocab, impl_->device));
  const bool wanted = logits.data() != nullptr;
  const int64_t chunk = impl_->gpu ? kCudaPrefillChunk : kPrefillChunk;
  const int64_t before = state->length;
  const bool all = wanted && logits.dim(0) == T;
  for (int64_t begin = 0; begin < T; begin += chunk) {
    const int64_t count = std::min(chunk, T - begin);
    TensorView rows;
    if (all) {
      rows = TensorView(logits.as<float>() + begin * logits.stride(0), DType::kF32, {count, config.vocab}, logits.device());
      rows.set_strides(logits.strides());
    } else if (wanted && begin + count == T) {
      rows = logits;
    }
    const auto part = ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    Status status = impl_->gpu ? impl_->gpu->Forward(part, *state, rows, ctx)
                               : model::ForwardChunk(impl_->loaded, impl_->frequencies, part, *state, rows, impl_->activation, ctx);
    if (!status.ok()) {
      state->length = before;
      return status;
    }
    state->length += count;
  }
  return OkStatus();
}

Result<int32_t> Model::ForwardGreedy(std::span<const int32_t> ids, KvCache& cache, ExecContext& ctx) const {
  const ModelConfig& config = impl_->loaded.config;
  KvCache::Impl* state = cache.impl_.get();
  BILLFISH_RETURN_IF_ERROR(CheckCall(config, impl_.get(), ids, state));
  if (impl_->gpu == nullptr) {
    state->last_row.resize(static_cast<size_t>(config.vocab));
    BILLFISH_RETURN_IF_ERROR(Forward(ids, cache, {state->last_row.data(), DType::kF32, {1, config.vocab}}, ctx));
    BILLFISH_ASSIGN_OR_RETURN(Sampler greedy, Sampler::Create({}));
    return greedy.Next(state->last_row);
  }
  // All but the last chunk as Forward does, which leaves the cache as it was after an error.
  const int64_t before = state->length;
  const size_t last = (ids.size() - 1) / kCudaPrefillChunk * kCudaPrefillChunk;
  if (last > 0) BILLFISH_RETURN_IF_ERROR(Forward(ids.first(last), cache, TensorView(), ctx));
  Result<int32_t> id = impl_->gpu->ForwardGreedy(ids.subspan(last), *state, ctx);
  state->length = id.ok() ? before + static_cast<int64_t>(ids.size()) : before;
  return id;
}

Result<StepProfile> Model::ProfileStep(int32_t id, KvCache& cache, int repetitions, ExecContext& ctx) const {
  const ModelConfig& config = impl_->loaded.config;
  KvCache::Impl* state = cache.impl_.get();
  const std::span<const int32_t> ids(&id, 1);
  BILLFISH_RETURN_IF_ERROR(CheckCall(config, impl_.get(), ids, state));
  if (repetitions < 1) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} repetitions of a step were asked for; at least one is needed", repetitions));
  }
  if (impl_->gpu) return impl_->gpu->ProfileStep(id, *state, repetitions, ctx);
  state->last_row.resize(static_cast<size_t>(config.vocab));
  const TensorView logits(state->last_row.data(), DType::kF32, {1, config.vocab});
  std::vector<double> weights, attention, other;
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    model::StepClock clock;
    BILLFISH_RETURN_IF_ERROR(model::ForwardChunk(impl_->loaded, impl_->frequencies, ids, *state, logits, impl_->activation, ctx, &clock));
    if (repetition == 0) continue;  // grows buffers
    weights.push_back(clock.us(model::StepPart::kWeights));
    attention.push_back(clock.us(model::StepPart::kAttention));
    other.push_back(clock.us(model::StepPart::kOther));
  }
  return StepProfile{Median(std::move(weights)), Median(std::move(attention)), Median(std::move(other))};
}

}  // namespace billfish
