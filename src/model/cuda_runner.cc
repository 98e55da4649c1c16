#include "model/cuda_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "core/median.h"
#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/driver_api.h"
#include "moe/gpu_access.h"

namespace billfish::model {

using cuda::CUstream;

namespace {

// Rows of logits that leave the device at a time when all of a long chunk are wanted.
constexpr int64_t kLogitRows = 256;

int32_t Int(int64_t value) { return static_cast<int32_t>(value); }

}  // namespace

// One chunk of tokens through the layers. Launches and nothing else: it can be recorded. `only` leaves out every launch but those of one
// part, which then reads what earlier calls left.
class CudaRunner::Call {
 public:
  Call(const CudaRunner& runner, const CudaCache& cache, const NewTokens& tokens, CudaStream stream,
       std::optional<StepPart> only = std::nullopt)
      : runner_(runner),
        config_(runner.model_->config),
        cache_(cache),
        s_(cache.scratch),
        x_(s_.x),
        other_x_(s_.other_x),
        delta_(s_.delta),
        other_delta_(s_.other_delta),
        first_(tokens.first),
        decodes_(tokens.per_sequence() == 1),
        T_(tokens.rows()),
        stream_(static_cast<CUstream>(stream)),
        workspace_(cache.workspace.span()),
        ctx_{workspace_, 1, stream},
        only_(only) {}

  Status Layers();
  /// Rows first .. first + rows of the chunk; y: f32 [rows, vocab] on the device.
  Status Logits(int64_t first, int64_t rows, TensorView y);

 private:
  ConstTensorView Input(int64_t rows, int64_t width) const { return {s_.input, DType::kBF16, {rows, width}, runner_.device_}; }
  TensorView Output(float* y, int64_t rows, int64_t width) const { return {y, DType::kF32, {rows, width}, runner_.device_}; }
  bool Runs(StepPart part) const { return !only_ || *only_ == part; }
  Status Multiply(const FusedLinear& linear, int64_t rows, int64_t width, TensorView y);
  Status Norm(float* x, const float* delta, const float* weight, int64_t rows);
  Status Attend(const Layer& layer, const LayerVectors& vectors, int64_t index);
  Status Scores(const Layer& layer, const LayerVectors& vectors, int64_t index);
  Status Dense(const Layer& layer);
  Status Experts(const Layer& layer, const LayerVectors& vectors);
  bool RoutesAtOnce(const Layer& layer) const;
  cuda::NormRowsArgs MlpNorm(const LayerVectors& vectors) const;
  Status NormAndRoute(const Layer& layer, const LayerVectors& vectors, const Routing& routing);

  const CudaRunner& runner_;
  const ModelConfig& config_;
  const CudaCache& cache_;
  const CudaScratch& s_;
  float *x_, *other_x_;          // the residual stream is in x_
  float *delta_, *other_delta_;  // and what is to be added to it in delta_
  int64_t first_;                // sequence
  bool decodes_;                 // each row continues a sequence of its own
  int64_t T_;
  CUstream stream_;
  Workspace workspace_;
  ExecContext ctx_;
  std::optional<StepPart> only_;
};

// y = the first `rows` rows of the input by a matrix.
Status CudaRunner::Call::Multiply(const FusedLinear& linear, int64_t rows, int64_t width, TensorView y) {
  return Runs(StepPart::kWeights) ? linear.Forward(Input(rows, width), y, ctx_) : OkStatus();
}

Status CudaRunner::Call::Norm(float* x, const float* delta, const float* weight, int64_t rows) {
  if (!Runs(StepPart::kOther)) return OkStatus();
  return runner_.ops_.RmsNorm(
      {.x = x, .delta = delta, .weight = weight, .y = s_.input, .eps = config_.norm_eps, .T = Int(rows), .H = Int(config_.hidden)},
      stream_);
}

Status CudaRunner::Call::Attend(const Layer& layer, const LayerVectors& vectors, int64_t index) {
  const int64_t D = config_.head_dim;
  BILLFISH_RETURN_IF_ERROR(Multiply(layer.qkv, T_, config_.hidden, Output(s_.qkv, T_, (config_.heads + 2 * config_.kv_heads) * D)));
  if (Runs(StepPart::kAttention)) BILLFISH_RETURN_IF_ERROR(Scores(layer, vectors, index));
  return Multiply(layer.o, T_, config_.heads * config_.v_head_dim, Output(delta_, T_, config_.hidden));
}

// From qkv to the input of o.
Status CudaRunner::Call::Scores(const Layer& layer, const LayerVectors& vectors, int64_t index) {
  const int64_t D = config_.head_dim;
  const float *cosines = reinterpret_cast<const float*>(cache_.rope.data()), *sines = cosines + cache_.capacity * config_.rope.dim / 2;
  const float scale = 1.0f / std::sqrt(static_cast<float>(D));
  if (decodes_) {
    const CudaPlainLinear* router = layer.config.moe ? layer.router->plain() : nullptr;
    const bool is_last = index + 1 == static_cast<int64_t>(runner_.layers_.size());
    return runner_.ops_.AttentionDecode({.qkv = s_.qkv,
                                         .q_norm = vectors.q_norm,
                                         .k_norm = vectors.k_norm,
                                         .cosines = cosines,
                                         .sines = sines,
                                         .sinks = vectors.sinks,
                                         .positions = cache_.positions() + first_,
                                         .keys = cache_.Keys(index, first_),
                                         .values = cache_.Values(index, first_),
                                         .next_keys = is_last ? nullptr : cache_.Keys(index + 1, first_),
                                         .next_values = is_last ? nullptr : cache_.Values(index + 1, first_),
                                         .out = s_.input,
                                         .partial = s_.partial,
                                         .arrivals = cache_.attention_arrivals(),
                                         .capacity = cache_.capacity,
                                         .slot_stride = cache_.sequence_values,
                                         .window = layer.config.window,
                                         .scale = scale,
                                         .eps = config_.norm_eps,
                                         .T = Int(T_),
                                         .heads = Int(config_.heads),
                                         .kv_heads = Int(config_.kv_heads),
                                         .soon = router == nullptr ? nullptr : router->weight(),
                                         .soon_bytes = router == nullptr ? 0 : static_cast<int64_t>(router->weight_bytes())},
                                        stream_);
  }
  BILLFISH_RETURN_IF_ERROR(runner_.ops_.Rope({.qkv = s_.qkv,
                                              .q_norm = vectors.q_norm,
                                              .k_norm = vectors.k_norm,
                                              .cosines = cosines,
                                              .sines = sines,
                                              .position = cache_.positions() + first_,
                                              .q = s_.q,
                                              .keys = cache_.Keys(index, first_),
                                              .values = cache_.Values(index, first_),
                                              .capacity = cache_.capacity,
                                              .eps = config_.norm_eps,
                                              .T = Int(T_),
                                              .heads = Int(config_.heads),
                                              .kv_heads = Int(config_.kv_heads),
                                              .D = Int(D)},
                                             stream_));
  return runner_.ops_.AttentionPrefill({.q = s_.q,
                                        .keys = cache_.Keys(index, first_),
                                        .values = cache_.Values(index, first_),
                                        .sinks = vectors.sinks,
                                        .position = cache_.positions() + first_,
                                        .out = s_.input,
                                        .capacity = cache_.capacity,
                                        .window = layer.config.window,
                                        .scale = scale,
                                        .T = Int(T_),
                                        .heads = Int(config_.heads),
                                        .kv_heads = Int(config_.kv_heads)},
                                       stream_);
}

Status CudaRunner::Call::Dense(const Layer& layer) {
  const int64_t I = config_.intermediate;
  BILLFISH_RETURN_IF_ERROR(Multiply(layer.gate_up, T_, config_.hidden, Output(s_.gate_up, T_, 2 * I)));
  if (Runs(StepPart::kOther)) {
    BILLFISH_RETURN_IF_ERROR(runner_.ops_.Swiglu({.gate_up = s_.gate_up, .h = s_.input, .T = Int(T_), .I = Int(I)}, stream_));
  }
  return Multiply(layer.down, T_, I, Output(delta_, T_, config_.hidden));
}

// Few rows by a small bf16 router on a GPU that has the kernel: sum, norm, matrix and rule are one launch.
bool CudaRunner::Call::RoutesAtOnce(const Layer& layer) const {
  const CudaPlainLinear* router = layer.router->plain();
  return T_ <= cuda::kMostNormedRows && runner_.norm_router_ && runner_.norm_router_->CanNorm(config_.hidden) && router != nullptr &&
         router->type() == cuda::PlainType::kBF16;
}

// To where the sum of the residual stream with the delta goes.
cuda::NormRowsArgs CudaRunner::Call::MlpNorm(const LayerVectors& vectors) const {
  return {.x = x_,
          .delta = delta_,
          .weight = vectors.mlp_norm,
          .sum = other_x_,
          .y = s_.input,
          .eps = config_.norm_eps,
          .M = Int(T_),
          .H = Int(config_.hidden)};
}

Status CudaRunner::Call::NormAndRoute(const Layer& layer, const LayerVectors& vectors, const Routing& routing) {
  if (!Runs(StepPart::kOther)) return OkStatus();
  const CudaPlainLinear& router = *layer.router->plain();
  cuda::NormRouteArgs args;
  args.norm = MlpNorm(vectors);
  args.weight = static_cast<const uint16_t*>(router.weight());
  args.bias = router.bias();
  args.route.token_ids = cache_.ids();
  args.route.ids = routing.ids.as<int32_t>();
  args.route.weights = routing.weights.as<float>();
  std::swap(x_, other_x_);
  return runner_.norm_router_->RunNormed(args, stream_);
}

// From the sum of the residual stream with the delta to the experts' delta.
Status CudaRunner::Call::Experts(const Layer& layer, const LayerVectors& vectors) {
  const Routing routing{{s_.expert_ids, DType::kI32, {T_, config_.top_k}, runner_.device_}, Output(s_.expert_weights, T_, config_.top_k)};
  if (RoutesAtOnce(layer)) {
    if (T_ == 1) {
      const CudaPlainLinear& router = *layer.router->plain();
      const cuda::HeldNormedCall whole{.norm = MlpNorm(vectors),
                                       .router = static_cast<const uint16_t*>(router.weight()),
                                       .logit_bias = router.bias(),
                                       .route = runner_.norm_router_->rule(),
                                       .y = other_delta_};
      const backend::CudaMoe& experts = *moe::GpuAccess::Of(*layer.experts);
      if (experts.Takes(whole, workspace_.memory())) {
        if (!Runs(StepPart::kWeights)) return OkStatus();
        std::swap(x_, other_x_);
        std::swap(delta_, other_delta_);
        return experts.Run(whole, workspace_.memory(), ctx_.stream);
      }
    }
    BILLFISH_RETURN_IF_ERROR(NormAndRoute(layer, vectors, routing));
  } else {
    BILLFISH_RETURN_IF_ERROR(Norm(x_, delta_, vectors.mlp_norm, T_));
    const TensorView logits = Output(s_.router, T_, config_.experts);
    BILLFISH_RETURN_IF_ERROR(Multiply(*layer.router, T_, config_.hidden, logits));
    if (Runs(StepPart::kOther)) {
      BILLFISH_RETURN_IF_ERROR(runner_.router_.Forward(logits, {cache_.ids(), DType::kI32, {T_}, runner_.device_}, routing, ctx_));
    }
  }
  if (!Runs(StepPart::kWeights)) return OkStatus();
  return layer.experts->Forward(Input(T_, config_.hidden), routing, Output(delta_, T_, config_.hidden), ctx_);
}

Status CudaRunner::Call::Layers() {
  if (Runs(StepPart::kOther)) {
    BILLFISH_RETURN_IF_ERROR(runner_.ops_.Embedding({.table = runner_.embedding_.data(),
                                                     .ids = cache_.ids(),
                                                     .x = x_,
                                                     .table_f32 = runner_.embedding_f32_ ? 1 : 0,
                                                     .T = Int(T_),
                                                     .H = Int(config_.hidden)},
                                                    stream_));
  }
  for (size_t index = 0; index < runner_.layers_.size(); ++index) {
    const Layer& layer = runner_.model_->layers[index];
    const LayerVectors& vectors = runner_.layers_[index];
    BILLFISH_RETURN_IF_ERROR(Norm(x_, index == 0 ? nullptr : delta_, vectors.attention_norm, T_));
    BILLFISH_RETURN_IF_ERROR(Attend(layer, vectors, static_cast<int64_t>(index)));
    if (layer.config.moe) {
      BILLFISH_RETURN_IF_ERROR(Experts(layer, vectors));
      continue;
    }
    BILLFISH_RETURN_IF_ERROR(Norm(x_, delta_, vectors.mlp_norm, T_));
    BILLFISH_RETURN_IF_ERROR(Dense(layer));
  }
  return OkStatus();
}

Status CudaRunner::Call::Logits(int64_t first, int64_t rows, TensorView y) {
  const int64_t offset = first * config_.hidden;
  BILLFISH_RETURN_IF_ERROR(Norm(x_ + offset, delta_ + offset, runner_.final_norm_, rows));
  return Multiply(runner_.model_->lm_head, rows, config_.hidden, y);
}

Result<std::unique_ptr<CudaRunner>> CudaRunner::Create(LoadedModel& model, std::vector<float> frequencies, Device device,
                                                       bool record_decode) {
  const ModelConfig& config = model.config;
  auto runner = std::make_unique<CudaRunner>();
  runner->model_ = &model;
  runner->device_ = device;
  runner->frequencies_ = std::move(frequencies);
  runner->record_decode_ = record_decode;
  // No architecture so far has other heads; the kernels would need to know.
  if (config.head_dim != config.v_head_dim || config.head_dim != config.rope.dim) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("a head of the model has {} values in keys, of which {} rotate, and {} in values; on a GPU all must be equal",
                              config.head_dim, config.rope.dim, config.v_head_dim));
  }
  BILLFISH_ASSIGN_OR_RETURN(runner->gpu_, cuda::GpuDevice::Get(device.index));
  BILLFISH_ASSIGN_OR_RETURN(runner->ops_, cuda::ModelOps::Create(*runner->gpu_, config.head_dim));
  if (config.router) {
    BILLFISH_ASSIGN_OR_RETURN(runner->router_, Router::Create(*config.router, device));
    BILLFISH_ASSIGN_OR_RETURN(runner->norm_router_, cuda::Router::Create(*config.router, *runner->gpu_));
  }
  BILLFISH_RETURN_IF_ERROR(runner->UploadVectors());
  BILLFISH_RETURN_IF_ERROR(runner->UploadEmbedding(model.embedding));
  return runner;
}

Status CudaRunner::UploadVectors() {
  // Each vector begins at a multiple of 64 floats.
  std::vector<float> host;
  std::vector<std::pair<const float**, size_t>> places;
  const auto add = [&](const std::vector<float>& vector, const float*& pointer) {
    if (vector.empty()) return;
    host.resize(RoundUp(host.size(), 64));
    places.emplace_back(&pointer, host.size());
    host.insert(host.end(), vector.begin(), vector.end());
  };
  layers_.resize(model_->layers.size());
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = model_->layers[i];
    add(layer.attention_norm, layers_[i].attention_norm);
    add(layer.mlp_norm, layers_[i].mlp_norm);
    add(layer.q_norm, layers_[i].q_norm);
    add(layer.k_norm, layers_[i].k_norm);
    add(layer.sinks, layers_[i].sinks);
  }
  add(model_->final_norm, final_norm_);
  const auto count = static_cast<int64_t>(host.size());
  BILLFISH_ASSIGN_OR_RETURN(vectors_, DeviceBuffer::Allocate(device_, host.size() * sizeof(float)));
  BILLFISH_RETURN_IF_ERROR(CopyTensor({vectors_.data(), DType::kF32, {count}, device_}, {host.data(), DType::kF32, {count}}));
  for (const auto& [pointer, place] : places) *pointer = reinterpret_cast<const float*>(vectors_.data()) + place;
  return OkStatus();
}

Status CudaRunner::UploadEmbedding(Embedding& embedding) {
  embedding_f32_ = embedding.bf16.empty();
  const void* table = embedding_f32_ ? static_cast<const void*>(embedding.f32.data()) : embedding.bf16.data();
  const int64_t bytes = embedding.vocab * embedding.hidden * (embedding_f32_ ? 4 : 2);
  BILLFISH_ASSIGN_OR_RETURN(embedding_, DeviceBuffer::Allocate(device_, static_cast<size_t>(bytes)));
  BILLFISH_RETURN_IF_ERROR(CopyTensor({embedding_.data(), DType::kU8, {bytes}, device_}, {table, DType::kU8, {bytes}}));
  embedding.bf16 = {};
  embedding.f32 = {};
  return OkStatus();
}

Result<CudaCache> CudaRunner::NewCache(int64_t max_tokens, int64_t sequences) const {
  return CudaCache::Create(model_->config, frequencies_, device_, max_tokens, sequences, Model::kCudaPrefillChunk);
}

size_t CudaRunner::WorkspaceBytes(int64_t tokens, int64_t logit_rows) const {
  // A call of fewer rows may need more: few rows share a matrix among more blocks.
  size_t bytes = 0;
  for (const int64_t T : {int64_t{1}, int64_t{64}, tokens}) {
    if (T > tokens) continue;
    for (const Layer& layer : model_->layers) {
      bytes = std::max({bytes, layer.qkv.WorkspaceBytes(T), layer.o.WorkspaceBytes(T)});
      if (layer.experts) {
        bytes = std::max({bytes, layer.router->WorkspaceBytes(T), layer.experts->WorkspaceBytes(T, model_->config.top_k)});
      } else {
        bytes = std::max({bytes, layer.gate_up.WorkspaceBytes(T), layer.down.WorkspaceBytes(T)});
      }
    }
  }
  return std::max(bytes, model_->lm_head.WorkspaceBytes(logit_rows));
}

// The logits of the last token of each sequence to the scratch and, where asked, the greedy choices to the host: as a graph if these tokens
// are the only ones.
Status CudaRunner::RunLast(const NewTokens& tokens, KvCache::Impl& cache, bool greedy, CudaStream stream) const {
  CudaCache& gpu_cache = *cache.cuda;
  const int64_t T = tokens.rows(), rows = tokens.sequences;
  const bool recorded = record_decode_ && tokens.per_sequence() == 1;
  const CudaCache::Step step{tokens.first, rows, greedy};
  BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
  if (const auto graph = gpu_cache.decode.find(step); recorded && graph != gpu_cache.decode.end()) {
    BILLFISH_RETURN_IF_ERROR(gpu_cache.Begin(tokens.ids, cache.lengths, stream));
    return graph->second.Launch(stream);
  }
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Reserve(model_->config, T, rows, WorkspaceBytes(T, rows)));
  const TensorView logits(gpu_cache.scratch.logits, DType::kF32, {rows, model_->config.vocab}, device_);
  const auto launch = [&](CudaStream on) -> Status {
    Call call(*this, gpu_cache, tokens, on);
    BILLFISH_RETURN_IF_ERROR(call.Layers());
    BILLFISH_RETURN_IF_ERROR(call.Logits(T - rows, rows, logits));
    return greedy ? Choose(gpu_cache, rows, on) : OkStatus();
  };
  if (!recorded) {
    BILLFISH_RETURN_IF_ERROR(gpu_cache.Begin(tokens.ids, cache.lengths, stream));
    return launch(stream);
  }
  BILLFISH_ASSIGN_OR_RETURN(CudaGraph graph, CudaGraph::Capture(gpu_cache.recorder, [&] { return launch(gpu_cache.recorder.get()); }));
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Begin(tokens.ids, cache.lengths, stream));
  return gpu_cache.decode.emplace(step, std::move(graph)).first->second.Launch(stream);
}

// The places of the largest logits of the scratch's rows, to page-locked memory: a copy there can be recorded.
Status CudaRunner::Choose(const CudaCache& cache, int64_t rows, CudaStream stream) const {
  const auto on = static_cast<CUstream>(stream);
  BILLFISH_RETURN_IF_ERROR(ops_.Argmax({.values = cache.scratch.logits,
                                        .partial = cache.scratch.argmax_partial,
                                        .arrivals = cache.argmax_arrivals(),
                                        .id = cache.argmax_ids(),
                                        .rows = Int(rows),
                                        .count = Int(model_->config.vocab)},
                                       on));
  BILLFISH_ASSIGN_OR_RETURN(const cuda::DriverApi* api, cuda::Driver());
  return cuda::Check(api->MemcpyDtoHAsync(cache.choices.as<int32_t>(), reinterpret_cast<cuda::CUdeviceptr>(cache.argmax_ids()),
                                          static_cast<size_t>(rows) * sizeof(int32_t), on),
                     "copying token ids from the device");
}

// The first rows of the scratch's logits to where the caller wants them.
Status CudaRunner::DeliverRows(int64_t count, CudaCache& cache, TensorView logits, CudaStream stream) const {
  const int64_t V = model_->config.vocab;
  const ConstTensorView rows(cache.scratch.logits, DType::kF32, {count, V}, device_);
  if (logits.device().kind == Device::Kind::kCuda) {
    for (int64_t row = 0; row < count; ++row) {
      BILLFISH_RETURN_IF_ERROR(CopyTensor({logits.as<float>() + row * logits.stride(0), DType::kF32, {V}, device_},
                                          {cache.scratch.logits + row * V, DType::kF32, {V}, device_}, stream));
    }
    return OkStatus();
  }
  BILLFISH_RETURN_IF_ERROR(cache.ReserveRows(model_->config, count));
  BILLFISH_RETURN_IF_ERROR(CopyTensor({cache.rows.as<float>(), DType::kF32, {count, V}}, rows, stream));
  for (int64_t row = 0; row < count; ++row) {
    std::memcpy(logits.as<float>() + row * logits.stride(0), cache.rows.as<float>() + row * V, static_cast<size_t>(V) * sizeof(float));
  }
  return OkStatus();
}

Status CudaRunner::Forward(const NewTokens& tokens, KvCache::Impl& cache, TensorView logits, ExecContext& ctx) const {
  const int64_t T = tokens.rows(), V = model_->config.vocab;
  CudaCache& gpu_cache = *cache.cuda;
  const bool to_device = logits.device().kind == Device::Kind::kCuda;
  if (logits.data() != nullptr && logits.dim(0) == tokens.sequences) {
    BILLFISH_RETURN_IF_ERROR(RunLast(tokens, cache, false, ctx.stream));
    return DeliverRows(tokens.sequences, gpu_cache, logits, ctx.stream);
  }
  const int64_t step = logits.data() == nullptr ? 0 : std::min(T, kLogitRows);
  BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Reserve(model_->config, T, to_device ? 0 : step, WorkspaceBytes(T, step)));
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Begin(tokens.ids, cache.lengths, ctx.stream));
  Call call(*this, gpu_cache, tokens, ctx.stream);
  BILLFISH_RETURN_IF_ERROR(call.Layers());
  for (int64_t first = 0; step > 0 && first < T; first += step) {
    const int64_t rows = std::min(step, T - first);
    float* out = logits.as<float>() + first * logits.stride(0);
    if (to_device) {
      TensorView part(out, DType::kF32, {rows, V}, device_);
      part.set_strides(logits.strides());
      BILLFISH_RETURN_IF_ERROR(call.Logits(first, rows, part));
      continue;
    }
    float* scratch = gpu_cache.scratch.logits;
    BILLFISH_RETURN_IF_ERROR(call.Logits(first, rows, {scratch, DType::kF32, {rows, V}, device_}));
    const bool together = logits.stride(0) == V;
    for (int64_t r = 0; r < rows; r += together ? rows : 1) {
      const int64_t count = together ? rows : 1;
      BILLFISH_RETURN_IF_ERROR(CopyTensor({out + r * logits.stride(0), DType::kF32, {count, V}},
                                          {scratch + r * V, DType::kF32, {count, V}, device_}, ctx.stream));
    }
  }
  return OkStatus();
}

Status CudaRunner::ForwardGreedy(const NewTokens& tokens, KvCache::Impl& cache, std::span<int32_t> next, ExecContext& ctx) const {
  BILLFISH_RETURN_IF_ERROR(RunLast(tokens, cache, true, ctx.stream));
  BILLFISH_ASSIGN_OR_RETURN(const cuda::DriverApi* api, cuda::Driver());
  BILLFISH_RETURN_IF_ERROR(cuda::Check(api->StreamSynchronize(static_cast<CUstream>(ctx.stream)), "waiting for token ids"));
  std::copy_n(cache.cuda->choices.as<int32_t>(), next.size(), next.begin());
  return OkStatus();
}

Result<StepProfile> CudaRunner::ProfileStep(const NewTokens& tokens, KvCache::Impl& cache, int repetitions, ExecContext& ctx) const {
  CudaCache& gpu_cache = *cache.cuda;
  const int64_t rows = tokens.rows();
  BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Reserve(model_->config, rows, rows, WorkspaceBytes(rows, rows)));
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Begin(tokens.ids, cache.lengths, ctx.stream));
  const TensorView logits(gpu_cache.scratch.logits, DType::kF32, {rows, model_->config.vocab}, device_);
  BILLFISH_ASSIGN_OR_RETURN(CudaTimer timer, CudaTimer::Create(device_));
  const auto time = [&](std::optional<StepPart> only) -> Result<double> {
    BILLFISH_ASSIGN_OR_RETURN(const CudaGraph graph, CudaGraph::Capture(gpu_cache.recorder, [&]() -> Status {
                                Call call(*this, gpu_cache, tokens, gpu_cache.recorder.get(), only);
                                BILLFISH_RETURN_IF_ERROR(call.Layers());
                                return call.Logits(0, rows, logits);
                              }));
    constexpr int kWarmUp = 2;
    std::vector<double> times;
    for (int repetition = 0; repetition < repetitions + kWarmUp; ++repetition) {
      BILLFISH_RETURN_IF_ERROR(timer.Start(ctx.stream));
      BILLFISH_RETURN_IF_ERROR(graph.Launch(ctx.stream));
      BILLFISH_RETURN_IF_ERROR(timer.Stop(ctx.stream));
      BILLFISH_ASSIGN_OR_RETURN(const double us, timer.ElapsedUs());
      if (repetition >= kWarmUp) times.push_back(us);
    }
    return Median(std::move(times));
  };
  // The whole step first: the experts that it chose are those that the matrices alone run.
  BILLFISH_ASSIGN_OR_RETURN(const double all, time(std::nullopt));
  StepProfile profile;
  BILLFISH_ASSIGN_OR_RETURN(profile.weights_us, time(StepPart::kWeights));
  BILLFISH_ASSIGN_OR_RETURN(profile.attention_us, time(StepPart::kAttention));
  profile.other_us = std::max(0.0, all - profile.weights_us - profile.attention_us);
  return profile;
}

}  // namespace billfish::model
