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

  /// At most a chunk of tokens on either device; the lengths are left to the caller. `clock` for the CPU alone.
  Status RunChunk(const model::NewTokens& tokens, KvCache::Impl& cache, TensorView logits, ExecContext& ctx,
                  model::StepClock* clock = nullptr) const {
    return gpu ? gpu->Forward(tokens, cache, logits, ctx)
               : model::ForwardChunk(loaded, frequencies, tokens, cache, logits, activation, ctx, clock);
  }
  /// Rows of logits that the cache keeps for greedy choices of the CPU.
  TensorView HostRows(KvCache::Impl& cache, int64_t rows) const {
    cache.last_rows.resize(static_cast<size_t>(rows * loaded.config.vocab));
    return {cache.last_rows.data(), DType::kF32, {rows, loaded.config.vocab}};
  }
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

Status CheckCache(const void* owner, const KvCache::Impl* state) {
  if (state != nullptr && state->owner == owner) return OkStatus();
  return {ErrorCode::kInvalidArgument, "the cache belongs to another model; make one with NewCache"};
}

Result<int32_t> LargestOf(std::span<const float> logits) {
  BILLFISH_ASSIGN_OR_RETURN(Sampler greedy, Sampler::Create({}));
  return greedy.Next(logits);
}

// What every call that appends tokens requires of them and of the cache.
Status CheckTokens(const ModelConfig& config, const model::NewTokens& tokens, const KvCache::Impl& state) {
  if (tokens.ids.empty()) return {ErrorCode::kInvalidArgument, "no token ids were given; at least one is needed"};
  for (int64_t sequence = tokens.first; sequence < tokens.first + tokens.sequences; ++sequence) {
    const int64_t length = state.lengths[static_cast<size_t>(sequence)];
    if (length + tokens.per_sequence() <= state.max_tokens) continue;
    const std::string which = state.sequences() == 1 ? "the cache holds" : fmt::format("sequence {} of the cache holds", sequence);
    return {ErrorCode::kInvalidArgument, fmt::format("{} tokens were given and {} {} of at most {}; make a larger cache or start anew",
                                                     tokens.per_sequence(), which, length, state.max_tokens)};
  }
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    if (const int32_t id = tokens.ids[i]; id < 0 || id >= config.vocab) {
      return {ErrorCode::kInvalidArgument, fmt::format("token id {} at place {} is outside the vocabulary of {}", id, i, config.vocab)};
    }
  }
  return OkStatus();
}

// What both kinds of forward call on one sequence require of a cache and of ids.
Status CheckCall(const ModelConfig& config, const void* owner, const model::NewTokens& tokens, const KvCache::Impl* state) {
  BILLFISH_RETURN_IF_ERROR(CheckCache(owner, state));
  BILLFISH_RETURN_IF_ERROR(state->CheckSequence(tokens.first));
  return CheckTokens(config, tokens, *state);
}

// What every step of several sequences requires.
Status CheckStep(const ModelConfig& config, const void* owner, std::span<const int32_t> ids, const KvCache::Impl* state) {
  BILLFISH_RETURN_IF_ERROR(CheckCache(owner, state));
  const auto B = static_cast<int64_t>(ids.size());
  if (B > state->sequences()) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("ids of {} sequences were given and the cache holds {}; give at most as many, or make a cache for more", B,
                        state->sequences())};
  }
  return CheckTokens(config, {ids, 0, B}, *state);
}

// `last`: one row for the last of T tokens will do.
Status CheckLogits(const TensorView& logits, int64_t T, bool last, int64_t vocab, Device device) {
  if (logits.data() == nullptr) return OkStatus();
  const bool rows = logits.rank() == 2 && (logits.dim(0) == T || (last && logits.dim(0) == 1));
  if (logits.dtype() != DType::kF32 || !rows || logits.dim(1) != vocab) {
    const std::string or_last = last ? fmt::format(" or f32[1, {}]", vocab) : std::string();
    return {ErrorCode::kShapeMismatch, fmt::format("logits are {}; they must be f32[{}, {}]{}", logits.ToString(), T, vocab, or_last)};
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

Result<KvCache> Model::NewCache(int64_t max_tokens, int64_t sequences) const {
  if (max_tokens < 1 || max_tokens > impl_->max_context) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a cache for {} tokens was asked for; this model takes 1 to {}", max_tokens, impl_->max_context));
  }
  if (sequences < 1 || sequences > kMaxSequences) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a cache for {} sequences was asked for; it takes 1 to {}", sequences, kMaxSequences));
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
  cache.impl_->lengths.resize(static_cast<size_t>(sequences));
  if (impl_->gpu == nullptr) {
    BILLFISH_RETURN_IF_ERROR(cache.impl_->Allocate());
    return cache;
  }
  BILLFISH_ASSIGN_OR_RETURN(model::CudaCache on_device, impl_->gpu->NewCache(max_tokens, sequences));
  cache.impl_->bytes = on_device.memory.bytes();
  cache.impl_->cuda = std::make_shared<model::CudaCache>(std::move(on_device));
  return cache;
}

Status Model::Forward(std::span<const int32_t> ids, KvCache& cache, TensorView logits, ExecContext& ctx, int64_t sequence) const {
  const ModelConfig& config = impl_->loaded.config;
  const auto T = static_cast<int64_t>(ids.size());
  KvCache::Impl* state = cache.impl_.get();
  BILLFISH_RETURN_IF_ERROR(CheckCall(config, impl_.get(), {ids, sequence}, state));
  BILLFISH_RETURN_IF_ERROR(CheckLogits(logits, T, true, config.vocab, impl_->device));
  const bool wanted = logits.data() != nullptr;
  const int64_t chunk = impl_->gpu ? kCudaPrefillChunk : kPrefillChunk;
  int64_t& length = state->length(sequence);
  const int64_t before = length;
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
    Status status = impl_->RunChunk({ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), sequence}, *state, rows, ctx);
    if (!status.ok()) {
      length = before;
      return status;
    }
    length += count;
  }
  return OkStatus();
}

Result<int32_t> Model::ForwardGreedy(std::span<const int32_t> ids, KvCache& cache, ExecContext& ctx, int64_t sequence) const {
  const ModelConfig& config = impl_->loaded.config;
  KvCache::Impl* state = cache.impl_.get();
  BILLFISH_RETURN_IF_ERROR(CheckCall(config, impl_.get(), {ids, sequence}, state));
  if (impl_->gpu == nullptr) {
    const TensorView row = impl_->HostRows(*state, 1);
    BILLFISH_RETURN_IF_ERROR(Forward(ids, cache, row, ctx, sequence));
    return LargestOf(state->last_rows);
  }
  // All but the last chunk as Forward does, which leaves the cache as it was after an error.
  int64_t& length = state->length(sequence);
  const int64_t before = length;
  const size_t last = (ids.size() - 1) / kCudaPrefillChunk * kCudaPrefillChunk;
  if (last > 0) BILLFISH_RETURN_IF_ERROR(Forward(ids.first(last), cache, TensorView(), ctx, sequence));
  int32_t id = 0;
  const Status status = impl_->gpu->ForwardGreedy({ids.subspan(last), sequence}, *state, {&id, 1}, ctx);
  length = status.ok() ? before + static_cast<int64_t>(ids.size()) : before;
  if (!status.ok()) return status;
  return id;
}

Status Model::DecodeStep(std::span<const int32_t> ids, KvCache& cache, TensorView logits, ExecContext& ctx) const {
  KvCache::Impl* state = cache.impl_.get();
  const auto B = static_cast<int64_t>(ids.size());
  BILLFISH_RETURN_IF_ERROR(CheckStep(config(), impl_.get(), ids, state));
  BILLFISH_RETURN_IF_ERROR(CheckLogits(logits, B, false, config().vocab, impl_->device));
  BILLFISH_RETURN_IF_ERROR(impl_->RunChunk({ids, 0, B}, *state, logits, ctx));
  for (int64_t b = 0; b < B; ++b) ++state->length(b);
  return OkStatus();
}

Status Model::DecodeStepGreedy(std::span<const int32_t> ids, KvCache& cache, std::span<int32_t> next, ExecContext& ctx) const {
  KvCache::Impl* state = cache.impl_.get();
  const auto B = static_cast<int64_t>(ids.size());
  BILLFISH_RETURN_IF_ERROR(CheckStep(config(), impl_.get(), ids, state));
  if (next.size() != ids.size()) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("room for {} next ids was given for a step of {} sequences; give one place for each", next.size(), B)};
  }
  if (impl_->gpu == nullptr) {
    const TensorView rows = impl_->HostRows(*state, B);
    BILLFISH_RETURN_IF_ERROR(DecodeStep(ids, cache, rows, ctx));
    const auto V = static_cast<size_t>(config().vocab);
    for (size_t b = 0; b < next.size(); ++b) {
      BILLFISH_ASSIGN_OR_RETURN(next[b], LargestOf(std::span(state->last_rows).subspan(b * V, V)));
    }
    return OkStatus();
  }
  BILLFISH_RETURN_IF_ERROR(impl_->gpu->ForwardGreedy({ids, 0, B}, *state, next, ctx));
  for (int64_t b = 0; b < B; ++b) ++state->length(b);
  return OkStatus();
}

Result<StepProfile> Model::ProfileStep(std::span<const int32_t> ids, KvCache& cache, int repetitions, ExecContext& ctx) const {
  KvCache::Impl* state = cache.impl_.get();
  BILLFISH_RETURN_IF_ERROR(CheckStep(config(), impl_.get(), ids, state));
  if (repetitions < 1) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} repetitions of a step were asked for; at least one is needed", repetitions));
  }
  const model::NewTokens tokens{ids, 0, static_cast<int64_t>(ids.size())};
  if (impl_->gpu) return impl_->gpu->ProfileStep(tokens, *state, repetitions, ctx);
  const TensorView logits = impl_->HostRows(*state, tokens.rows());
  std::vector<double> weights, attention, other;
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    model::StepClock clock;
    BILLFISH_RETURN_IF_ERROR(impl_->RunChunk(tokens, *state, logits, ctx, &clock));
    if (repetition == 0) continue;  // grows buffers
    weights.push_back(clock.us(model::StepPart::kWeights));
    attention.push_back(clock.us(model::StepPart::kAttention));
    other.push_back(clock.us(model::StepPart::kOther));
  }
  return StepProfile{Median(std::move(weights)), Median(std::move(attention)), Median(std::move(other))};
}

}  // namespace billfish
