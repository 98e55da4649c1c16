#include "model/forward.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "core/rounding.h"
#include "core/status_macros.h"
#include "model/rope.h"
#include "model/vector_ops.h"

namespace billfish::model {
namespace {

// Cuts one block of memory into aligned arrays; a first pass without memory measures.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class T>
  T* Take(int64_t count) {
    T* p = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return p;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

struct Scratch {
  Scratch(const ModelConfig& c, const KvCache::Impl& cache, int64_t T, int threads, std::byte* base) {
    Carver carver(base);
    const int64_t qkv_width = (c.heads + 2 * c.kv_heads) * c.head_dim;
    const int64_t widest = std::max(c.hidden, c.heads * c.v_head_dim);
    x = carver.Take<float>(T * c.hidden);
    delta = carver.Take<float>(T * c.hidden);
    input = carver.Take<float>(T * std::max(widest, c.intermediate));
    qkv = carver.Take<float>(T * qkv_width);
    gate_up = carver.Take<float>(T * 2 * c.intermediate);
    cos = carver.Take<float>(T * c.rope.dim / 2);
    sin = carver.Take<float>(T * c.rope.dim / 2);
    router = carver.Take<float>(T * std::max<int64_t>(c.experts, 1));
    expert_ids = carver.Take<int32_t>(T * std::max<int64_t>(c.top_k, 1));
    expert_weights = carver.Take<float>(T * std::max<int64_t>(c.top_k, 1));
    accumulators = carver.Take<float>(int64_t{threads} * AttentionTile::kRows * cache.v_stride);
    bytes = carver.used();
  }
  float *x, *delta;
  float* input;  ///< what the next matrix reads, fp32 or bf16
  float *qkv, *gate_up, *cos, *sin, *router;
  int32_t* expert_ids;
  float *expert_weights, *accumulators;
  size_t bytes;
};

class Chunk {
 public:
  Chunk(const LoadedModel& model, const NewTokens& tokens, KvCache::Impl& cache, DType activation, ExecContext& ctx, const Scratch& scratch,
        StepClock* clock)
      : model_(model),
        config_(model.config),
        tokens_(tokens),
        cache_(cache),
        bf16_(activation == DType::kBF16),
        activation_(activation),
        ctx_(ctx),
        s_(scratch),
        clock_(clock),
        T_(tokens.rows()) {}

  void Begin(std::span<const float> frequencies);
  Status RunLayer(const Layer& layer, int64_t index);
  Status Logits(TensorView logits);

 private:
  ConstTensorView Input(int64_t rows, int64_t width) const { return {s_.input, activation_, {rows, width}}; }
  uint16_t* InputBf16(int64_t offset) const { return reinterpret_cast<uint16_t*>(s_.input) + offset; }
  // One row of the input: where a norm or an activation writes.
  float* InputF32(int64_t offset) const { return bf16_ ? nullptr : s_.input + offset; }
  void Norm(const float* x, const std::vector<float>& weight, int64_t rows);
  void AddDelta();
  void PlaceKeysAndValues(const Layer& layer, int64_t index);
  void Attend(const Layer& layer, int64_t index);
  void AttendTile(const Layer& layer, int64_t index, int64_t sequence, int64_t kv_head, int64_t tile, float* accumulator);
  // Of row t of the chunk, in its sequence.
  int64_t Position(int64_t t) const { return cache_.length(tokens_.SequenceOf(t)) + t % tokens_.per_sequence(); }
  Status Dense(const Layer& layer);
  Status Experts(const Layer& layer);
  void Lap(StepPart part) const {
    if (clock_ != nullptr) clock_->Lap(part);
  }
  // Work on few rows is not worth a fork.
  int Threads(int64_t work) const { return work < 16384 ? 1 : ctx_.threads; }

  const LoadedModel& model_;
  const ModelConfig& config_;
  const NewTokens& tokens_;
  KvCache::Impl& cache_;
  bool bf16_;
  DType activation_;
  ExecContext& ctx_;
  const Scratch& s_;
  StepClock* clock_;
  int64_t T_;
};

void Chunk::Begin(std::span<const float> frequencies) {
  const int64_t H = config_.hidden;
  const auto half = static_cast<int64_t>(frequencies.size());
  const auto factor = static_cast<float>(config_.rope.attention_factor);
  ParallelFor(Threads(T_ * H), T_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      model_.embedding.Row(tokens_.ids[static_cast<size_t>(t)], s_.x + t * H);
      const auto position = static_cast<float>(Position(t));
      for (int64_t i = 0; i < half; ++i) {
        const float angle = position * frequencies[static_cast<size_t>(i)];
        s_.cos[t * half + i] = std::cos(angle) * factor;
        s_.sin[t * half + i] = std::sin(angle) * factor;
      }
    }
  });
}

void Chunk::Norm(const float* x, const std::vector<float>& weight, int64_t rows) {
  const int64_t H = config_.hidden;
  ParallelFor(Threads(rows * H), rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) Ops().rms_norm(x + t * H, weight.data(), H, config_.norm_eps, InputF32(t * H), InputBf16(t * H));
  });
}

void Chunk::AddDelta() {
  ParallelFor(Threads(T_ * config_.hidden), T_ * config_.hidden, 16,
              [&](int64_t begin, int64_t end) { Ops().add(s_.x + begin, s_.delta + begin, end - begin); });
}

// Norms and rotates q and k in place, scales q, and moves k and v into the cache.
void Chunk::PlaceKeysAndValues(const Layer& layer, int64_t index) {
  const int64_t D = config_.head_dim, q_heads = config_.heads, kv_heads = config_.kv_heads;
  const int64_t width = (q_heads + 2 * kv_heads) * D, half = config_.rope.dim / 2;
  const float scale = 1.0f / std::sqrt(static_cast<float>(D));
  ParallelFor(Threads(T_ * width), T_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = s_.qkv + t * width;
      for (int64_t head = 0; head < q_heads + kv_heads; ++head) {
        float* values = row + head * D;
        const std::vector<float>& norm = head < q_heads ? layer.q_norm : layer.k_norm;
        if (!norm.empty()) Ops().rms_norm(values, norm.data(), D, config_.norm_eps, values, nullptr);
        Rotate(values, s_.cos + t * half, s_.sin + t * half, config_.rope.dim);
        if (head < q_heads) {
          for (int64_t d = 0; d < D; ++d) values[d] *= scale;
        }
      }
      for (int64_t head = 0; head < kv_heads; ++head) {
        cache_.Put(tokens_.SequenceOf(t), index, head, Position(t), row + (q_heads + head) * D, row + (q_heads + kv_heads + head) * D);
      }
    }
  });
}

// Tiles hold rows of one sequence, the one counted from the first of the chunk.
void Chunk::AttendTile(const Layer& layer, int64_t index, int64_t sequence, int64_t kv_head, int64_t tile_index, float* accumulator) {
  const int64_t D = config_.head_dim, group = config_.heads / config_.kv_heads;
  const int64_t width = (config_.heads + 2 * config_.kv_heads) * D, out_width = config_.heads * config_.v_head_dim;
  AttentionTile tile;
  tile.keys = cache_.Keys(tokens_.first + sequence, index, kv_head);
  tile.values = cache_.Values(tokens_.first + sequence, index, kv_head);
  tile.qk_dim = D;
  tile.v_dim = config_.v_head_dim;
  tile.v_stride = cache_.v_stride;
  tile.accumulator = accumulator;
  tile.bf16 = bf16_;
  tile.has_sink = !layer.sinks.empty();
  const int64_t begin = tile_index * AttentionTile::kRows, end = std::min(begin + AttentionTile::kRows, tokens_.per_sequence() * group);
  tile.rows = static_cast<int>(end - begin);
  for (int64_t i = begin; i < end; ++i) {
    const auto r = static_cast<size_t>(i - begin);
    const int64_t t = sequence * tokens_.per_sequence() + i / group, head = kv_head * group + i % group, position = Position(t);
    tile.q[r] = s_.qkv + t * width + head * D;
    tile.last[r] = position;
    tile.first[r] = layer.config.window > 0 ? std::max<int64_t>(0, position - layer.config.window + 1) : 0;
    if (tile.has_sink) tile.sink[r] = layer.sinks[static_cast<size_t>(head)];
    const int64_t out = t * out_width + head * config_.v_head_dim;
    tile.out_f32[r] = InputF32(out);
    tile.out_bf16[r] = InputBf16(out);
  }
  Ops().attention(tile);
}

void Chunk::Attend(const Layer& layer, int64_t index) {
  const int64_t group = config_.heads / config_.kv_heads;
  const int64_t tiles = DivideUp(tokens_.per_sequence() * group, AttentionTile::kRows);
  const int64_t columns = tokens_.sequences * config_.kv_heads, items = tiles * columns;
  int64_t keys = 0;
  for (int64_t t = 0; t < T_; ++t) keys += Position(t) + 1;
  const int64_t work = config_.heads * config_.head_dim * keys;
  const int threads = static_cast<int>(std::min<int64_t>(items, Threads(work / 16)));
  std::atomic<int64_t> next{0};
  RunOnThreads(threads, [&](int thread) {
    float* accumulator = s_.accumulators + int64_t{thread} * AttentionTile::kRows * cache_.v_stride;
    // Late tiles see the most keys, so they go first.
    for (int64_t item = next.fetch_add(1); item < items; item = next.fetch_add(1)) {
      const int64_t column = item % columns;
      AttendTile(layer, index, column / config_.kv_heads, column % config_.kv_heads, tiles - 1 - item / columns, accumulator);
    }
  });
}

Status Chunk::Dense(const Layer& layer) {
  const int64_t I = config_.intermediate;
  BILLFISH_RETURN_IF_ERROR(layer.gate_up.Forward(Input(T_, config_.hidden), {s_.gate_up, DType::kF32, {T_, 2 * I}}, ctx_));
  Lap(StepPart::kWeights);
  ParallelFor(Threads(T_ * I), T_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* gate = s_.gate_up + t * 2 * I;
      Ops().swiglu(gate, gate + I, I, InputF32(t * I), InputBf16(t * I));
    }
  });
  Lap(StepPart::kOther);
  return layer.down.Forward(Input(T_, I), {s_.delta, DType::kF32, {T_, config_.hidden}}, ctx_);
}

Status Chunk::Experts(const Layer& layer) {
  const TensorView logits(s_.router, DType::kF32, {T_, config_.experts});
  BILLFISH_RETURN_IF_ERROR(layer.router->Forward(Input(T_, config_.hidden), logits, ctx_));
  Lap(StepPart::kWeights);
  const Routing routing{{s_.expert_ids, DType::kI32, {T_, config_.top_k}}, {s_.expert_weights, DType::kF32, {T_, config_.top_k}}};
  BILLFISH_RETURN_IF_ERROR(RouteTopK(logits, *config_.router, tokens_.ids, routing, ctx_));
  Lap(StepPart::kOther);
  return layer.experts->Forward(Input(T_, config_.hidden), routing, {s_.delta, DType::kF32, {T_, config_.hidden}}, ctx_);
}

Status Chunk::RunLayer(const Layer& layer, int64_t index) {
  Norm(s_.x, layer.attention_norm, T_);
  Lap(StepPart::kOther);
  const int64_t qkv_width = (config_.heads + 2 * config_.kv_heads) * config_.head_dim;
  BILLFISH_RETURN_IF_ERROR(layer.qkv.Forward(Input(T_, config_.hidden), {s_.qkv, DType::kF32, {T_, qkv_width}}, ctx_));
  Lap(StepPart::kWeights);
  PlaceKeysAndValues(layer, index);
  Attend(layer, index);
  Lap(StepPart::kAttention);
  BILLFISH_RETURN_IF_ERROR(
      layer.o.Forward(Input(T_, config_.heads * config_.v_head_dim), {s_.delta, DType::kF32, {T_, config_.hidden}}, ctx_));
  Lap(StepPart::kWeights);
  AddDelta();
  Norm(s_.x, layer.mlp_norm, T_);
  Lap(StepPart::kOther);
  BILLFISH_RETURN_IF_ERROR(layer.config.moe ? Experts(layer) : Dense(layer));
  Lap(StepPart::kWeights);
  AddDelta();
  return OkStatus();
}

Status Chunk::Logits(TensorView logits) {
  if (logits.data() == nullptr) return OkStatus();
  const int64_t rows = logits.dim(0);
  Norm(s_.x + (T_ - rows) * config_.hidden, model_.final_norm, rows);
  Lap(StepPart::kOther);
  BILLFISH_RETURN_IF_ERROR(model_.lm_head.Forward(Input(rows, config_.hidden), logits, ctx_));
  Lap(StepPart::kWeights);
  return OkStatus();
}

size_t WorkspaceFor(const LoadedModel& model, int64_t T, int64_t logit_rows) {
  size_t bytes = model.lm_head.WorkspaceBytes(logit_rows);
  for (const Layer& layer : model.layers) {
    bytes = std::max({bytes, layer.qkv.WorkspaceBytes(T), layer.o.WorkspaceBytes(T)});
    if (layer.experts) {
      bytes = std::max({bytes, layer.router->WorkspaceBytes(T), layer.experts->WorkspaceBytes(T, model.config.top_k),
                        RouteWorkspaceBytes(T, *model.config.router)});
    } else {
      bytes = std::max({bytes, layer.gate_up.WorkspaceBytes(T), layer.down.WorkspaceBytes(T)});
    }
  }
  return bytes;
}

}  // namespace

Status ForwardChunk(const LoadedModel& model, std::span<const float> frequencies, const NewTokens& tokens, KvCache::Impl& cache,
                    TensorView logits, DType activation, ExecContext& ctx, StepClock* clock) {
  if (clock != nullptr) clock->Start();
  const int64_t T = tokens.rows();
  BILLFISH_RETURN_IF_ERROR(ctx.workspace.Reserve(WorkspaceFor(model, T, logits.data() == nullptr ? 0 : logits.dim(0))));
  BILLFISH_RETURN_IF_ERROR(cache.scratch.Reserve(Scratch(model.config, cache, T, ctx.threads, nullptr).bytes));
  const Scratch scratch(model.config, cache, T, ctx.threads, cache.scratch.memory().data());
  Chunk chunk(model, tokens, cache, activation, ctx, scratch, clock);
  chunk.Begin(frequencies);
  for (size_t index = 0; index < model.layers.size(); ++index) {
    if (Status status = chunk.RunLayer(model.layers[index], static_cast<int64_t>(index)); !status.ok()) return status;
  }
  return chunk.Logits(logits);
}

}  // namespace billfish::model
