#include "model/cuda_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "core/median.h"
#include "core/status_macros.h"
#include "cuda/driver_api.h"

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
  Call(const CudaRunner& runner, const CudaCache& cache, int64_t tokens, CudaStream stream, std::optional<StepPart> only = std::nullopt)
      : runner_(runner),
        config_(runner.model_->config),
        cache_(cache),
        s_(cache.scratch),
        T_(tokens),
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
  Status Experts(const Layer& layer);

  const CudaRunner& runner_;
  const ModelConfig& config_;
  const CudaCache& cache_;
  const CudaScratch& s_;
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
  return Multiply(layer.o, T_, config_.heads * config_.v_head_dim, Output(s_.delta, T_, config_.hidden));
}

// From qkv to the input of o.
Status CudaRunner::Call::Scores(const Layer& layer, const LayerVectors& vectors, int64_t index) {
  const int64_t D = config_.head_dim;
  const float* cosines = reinterpret_cast<const float*>(cache_.rope.data());
  cuda::RopeArgs rope;
  rope.qkv = s_.qkv;
  rope.q_norm = vectors.q_norm;
  rope.k_norm = vectors.k_norm;
  rope.cosines = cosines;
  rope.sines = cosines + cache_.capacity * config_.rope.dim / 2;
  rope.positions = cache_.position();
  rope.q = s_.q;
  rope.keys = cache_.Keys(index);
  rope.values = cache_.Values(index);
  rope.capacity = cache_.capacity;
  rope.eps = config_.norm_eps;
  rope.T = Int(T_);
  rope.heads = Int(config_.heads);
  rope.kv_heads = Int(config_.kv_heads);
  rope.D = Int(D);
  BILLFISH_RETURN_IF_ERROR(runner_.ops_.Rope(rope, stream_));
  cuda::AttentionArgs attention;
  attention.q = s_.q;
  attention.keys = cache_.Keys(index);
  attention.values = cache_.Values(index);
  attention.sinks = vectors.sinks;
  attention.positions = cache_.position();
  attention.out = s_.input;
  attention.partial = s_.partial;
  attention.arrivals = cache_.attention_arrivals();
  attention.capacity = cache_.capacity;
  attention.window = layer.config.window;
  attention.scale = 1.0f / std::sqrt(static_cast<float>(D));
  attention.T = Int(T_);
  attention.heads = Int(config_.heads);
  attention.kv_heads = Int(config_.kv_heads);
  return T_ == 1 ? runner_.ops_.AttentionDecode(attention, stream_) : runner_.ops_.AttentionPrefill(attention, stream_);
}

Status CudaRunner::Call::Dense(const Layer& layer) {
  const int64_t I = config_.intermediate;
  BILLFISH_RETURN_IF_ERROR(Multiply(layer.gate_up, T_, config_.hidden, Output(s_.gate_up, T_, 2 * I)));
  if (Runs(StepPart::kOther)) {
    BILLFISH_RETURN_IF_ERROR(runner_.ops_.Swiglu({.gate_up = s_.gate_up, .h = s_.input, .T = Int(T_), .I = Int(I)}, stream_));
  }
  return Multiply(layer.down, T_, I, Output(s_.delta, T_, config_.hidden));
}

Status CudaRunner::Call::Experts(const Layer& layer) {
  const TensorView logits = Output(s_.router, T_, config_.experts);
  BILLFISH_RETURN_IF_ERROR(Multiply(*layer.router, T_, config_.hidden, logits));
  const Routing routing{{s_.expert_ids, DType::kI32, {T_, config_.top_k}, runner_.device_}, Output(s_.expert_weights, T_, config_.top_k)};
  if (Runs(StepPart::kOther)) {
    BILLFISH_RETURN_IF_ERROR(runner_.router_.Forward(logits, {cache_.ids(), DType::kI32, {T_}, runner_.device_}, routing, ctx_));
  }
  if (!Runs(StepPart::kWeights)) return OkStatus();
  return layer.experts->Forward(Input(T_, config_.hidden), routing, Output(s_.delta, T_, config_.hidden), ctx_);
}

Status CudaRunner::Call::Layers() {
  if (Runs(StepPart::kOther)) {
    BILLFISH_RETURN_IF_ERROR(runner_.ops_.Embedding({.table = runner_.embedding_.data(),
                                                     .ids = cache_.ids(),
                                                     .x = s_.x,
                                                     .table_f32 = runner_.embedding_f32_ ? 1 : 0,
                                                     .T = Int(T_),
                                                     .H = Int(config_.hidden)},
                                                    stream_));
  }
  const float* delta = nullptr;  // what the layer before left to be added
  for (size_t index = 0; index < runner_.layers_.size(); ++index) {
    const Layer& layer = runner_.model_->layers[index];
    const LayerVectors& vectors = runner_.layers_[index];
    BILLFISH_RETURN_IF_ERROR(Norm(s_.x, delta, vectors.attention_norm, T_));
    BILLFISH_RETURN_IF_ERROR(Attend(layer, vectors, static_cast<int64_t>(index)));
    delta = s_.delta;
    BILLFISH_RETURN_IF_ERROR(Norm(s_.x, delta, vectors.mlp_norm, T_));
    BILLFISH_RETURN_IF_ERROR(layer.config.moe ? Experts(layer) : Dense(layer));
  }
  return OkStatus();
}

Status CudaRunner::Call::Logits(int64_t first, int64_t rows, TensorView y) {
  const int64_t offset = first * config_.hidden;
  BILLFISH_RETURN_IF_ERROR(Norm(s_.x + offset, s_.delta + offset, runner_.final_norm_, rows));
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
    host.resize((host.size() + 63) / 64 * 64);
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

Result<CudaCache> CudaRunner::NewCache(int64_t max_tokens) const {
  return CudaCache::Create(model_->config, frequencies_, device_, max_tokens, Model::kCudaPrefillChunk);
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

// The last token's logits to the scratch: as a graph if it is the only one.
Status CudaRunner::RunLast(std::span<const int32_t> ids, KvCache::Impl& cache, CudaStream stream) const {
  const auto T = static_cast<int64_t>(ids.size());
  CudaCache& gpu_cache = *cache.cuda;
  BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Reserve(model_->config, T, 1, WorkspaceBytes(T, 1)));
  const TensorView row(gpu_cache.scratch.logits, DType::kF32, {1, model_->config.vocab}, device_);
  const auto launch = [&](CudaStream on) -> Status {
    Call call(*this, gpu_cache, T, on);
    BILLFISH_RETURN_IF_ERROR(call.Layers());
    return call.Logits(T - 1, 1, row);
  };
  if (T == 1 && record_decode_ && gpu_cache.decode.empty()) {
    BILLFISH_ASSIGN_OR_RETURN(gpu_cache.decode, CudaGraph::Capture(gpu_cache.recorder, [&] { return launch(gpu_cache.recorder.get()); }));
  }
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Begin(ids, cache.length, stream));
  return T == 1 && record_decode_ ? gpu_cache.decode.Launch(stream) : launch(stream);
}

Status CudaRunner::Forward(std::span<const int32_t> ids, KvCache::Impl& cache, TensorView logits, ExecContext& ctx) const {
  const auto T = static_cast<int64_t>(ids.size()), V = model_->config.vocab;
  CudaCache& gpu_cache = *cache.cuda;
  const bool to_device = logits.device().kind == Device::Kind::kCuda;
  if (logits.data() != nullptr && logits.dim(0) == 1) {
    BILLFISH_RETURN_IF_ERROR(RunLast(ids, cache, ctx.stream));
    const ConstTensorView row(gpu_cache.scratch.logits, DType::kF32, {1, V}, device_);
    if (to_device) return CopyTensor({logits.mutable_data(), DType::kF32, {1, V}, logits.device()}, row, ctx.stream);
    BILLFISH_RETURN_IF_ERROR(CopyTensor({gpu_cache.row.as<float>(), DType::kF32, {1, V}}, row, ctx.stream));
    std::memcpy(logits.mutable_data(), gpu_cache.row.as<float>(), static_cast<size_t>(V) * sizeof(float));
    return OkStatus();
  }
  const int64_t step = logits.data() == nullptr ? 0 : std::min(T, kLogitRows);
  BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Reserve(model_->config, T, to_device ? 0 : step, WorkspaceBytes(T, step)));
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Begin(ids, cache.length, ctx.stream));
  Call call(*this, gpu_cache, T, ctx.stream);
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

Result<int32_t> CudaRunner::ForwardGreedy(std::span<const int32_t> ids, KvCache::Impl& cache, ExecContext& ctx) const {
  BILLFISH_RETURN_IF_ERROR(RunLast(ids, cache, ctx.stream));
  const CudaCache& gpu_cache = *cache.cuda;
  BILLFISH_RETURN_IF_ERROR(ops_.Argmax({.values = gpu_cache.scratch.logits,
                                        .partial = gpu_cache.scratch.argmax_partial,
                                        .arrivals = gpu_cache.argmax_arrivals(),
                                        .id = gpu_cache.argmax_id(),
                                        .count = Int(model_->config.vocab)},
                                       static_cast<CUstream>(ctx.stream)));
  int32_t id = 0;
  BILLFISH_RETURN_IF_ERROR(CopyTensor({&id, DType::kI32, {1}}, {gpu_cache.argmax_id(), DType::kI32, {1}, device_}, ctx.stream));
  return id;
}

Result<StepProfile> CudaRunner::ProfileStep(int32_t id, KvCache::Impl& cache, int repetitions, ExecContext& ctx) const {
  CudaCache& gpu_cache = *cache.cuda;
  BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Reserve(model_->config, 1, 1, WorkspaceBytes(1, 1)));
  BILLFISH_RETURN_IF_ERROR(gpu_cache.Begin({&id, 1}, cache.length, ctx.stream));
  const TensorView row(gpu_cache.scratch.logits, DType::kF32, {1, model_->config.vocab}, device_);
  BILLFISH_ASSIGN_OR_RETURN(CudaTimer timer, CudaTimer::Create(device_));
  const auto time = [&](std::optional<StepPart> only) -> Result<double> {
    BILLFISH_ASSIGN_OR_RETURN(const CudaGraph graph, CudaGraph::Capture(gpu_cache.recorder, [&]() -> Status {
                                Call call(*this, gpu_cache, 1, gpu_cache.recorder.get(), only);
                                BILLFISH_RETURN_IF_ERROR(call.Layers());
                                return call.Logits(0, 1, row);
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
