// Model: a language model from a Hugging Face folder, run on this machine's CPU or on one of its GPUs with a KV cache.
//
// Architectures: Llama, Qwen2, Qwen3, Mixtral, Qwen3-MoE, gpt-oss. Any matrix may be quantised or not.
// On a CPU the residual stream, norms, rotary embedding, attention, softmax and the cache are fp32; ModelOptions::activation is what the
// matrices read. On a GPU the residual stream, norms, rotary embedding and softmax are fp32; matrices, attention and the cache are bf16.
// One Model serves any number of threads at once, each with its own KvCache and ExecContext.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "billfish/backend.h"
#include "billfish/context.h"
#include "billfish/moe.h"
#include "billfish/panel_store.h"
#include "billfish/scheme.h"
#include "billfish/status.h"
#include "billfish/tensor.h"

namespace billfish {

/// Rotary position embedding: angle(position, i) = position * theta^(-2i/dim), with the frequencies rescaled as `kind` says.
/// Source: the rope_type functions of Hugging Face transformers; yarn: Peng et al. 2023, arXiv:2309.00071.
struct RopeConfig {
  enum class Kind : uint8_t { kDefault, kLinear, kLlama3, kYarn };
  Kind kind = Kind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                ///< kLinear, kLlama3, kYarn
  int64_t original_max_position = 0;  ///< kLlama3, kYarn: context length before extension
  double low_freq_factor = 1.0;       ///< kLlama3
  double high_freq_factor = 4.0;      ///< kLlama3
  double beta_fast = 32.0;            ///< kYarn
  double beta_slow = 1.0;             ///< kYarn
  bool truncate = true;               ///< kYarn: round the correction range outwards to whole dimensions
  double attention_factor = 1.0;      ///< multiplies cos and sin
  int64_t dim = 0;                    ///< how many leading values of a head rotate
};

struct LayerConfig {
  int64_t window = 0;  ///< a token sees itself and the window - 1 tokens before it; 0 = all
  bool moe = false;
};

/// config.json and generation_config.json, resolved: nothing is left to a default outside of this struct.
struct ModelConfig {
  std::string architecture;  ///< for example "Qwen3MoeForCausalLM"
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;      ///< of q and k
  int64_t v_head_dim = 0;    ///< of v
  int64_t intermediate = 0;  ///< of dense layers; 0 where there are none
  int64_t experts = 0;       ///< 0 = a dense model
  int64_t top_k = 0;
  int64_t moe_intermediate = 0;
  int64_t max_position = 0;
  bool tied_embeddings = false;
  bool attention_bias = false;
  float norm_eps = 0;
  RopeConfig rope;
  std::optional<RouterRule> router;      ///< without the correction, which is a tensor
  std::optional<Activation> activation;  ///< of the experts
  std::vector<LayerConfig> layers;
  std::vector<int32_t> eos_ids;  ///< of both files, ascending
  std::optional<int32_t> bos_id;
};

/// One matrix of a loaded model, for `inspect` and `explain`.
struct ModuleSummary {
  std::string name;    ///< "model.layers.0.self_attn.qkv_proj" for fused ones
  std::string scheme;  ///< QuantScheme::Name()
  std::string kernel;
  int64_t E = 1, N = 0, K = 0;
  size_t bytes = 0;         ///< packed, in memory
  size_t weight_bytes = 0;  ///< without padding
};

struct LoadProgress {
  int64_t layers_done = 0;
  int64_t layers = 0;
  size_t bytes = 0;  ///< of packed weights so far
};

struct ModelOptions {
  DType activation = DType::kF32;  ///< what the matrices read: kF32 or kBF16; kBF16 on a GPU
  Device device;                   ///< where the model lies and runs
  Mode mode = Mode::kExact;
  std::string kernel;       ///< use this kernel wherever it supports the matrix; an error if it supports none
  int64_t max_context = 0;  ///< longest sequence of a cache, in tokens; 0 = max_position_embeddings of config.json
  /// A folder that keeps packed weights between loads (see PanelStore); empty = none. Entries belong to the sizes, times of change and
  /// headers of the checkpoint's files and to its configuration, wherever it lies, and to this version of billfish.
  std::filesystem::path panel_cache;
  bool record_decode = true;                          ///< GPU: a call of one token is recorded once and replayed, with the same result
  std::function<bool(const LoadProgress&)> progress;  ///< called after each layer; false stops with kCancelled
};

/// A model without a checkpoint, for timing: what Model::Random makes up. Embedding and routers are bf16.
struct RandomModel {
  std::string config_json;                 ///< text of a config.json
  QuantScheme mlp = schemes::kMxfp4;       ///< of expert stacks and of the matrices of dense layers
  QuantScheme attention = schemes::kBf16;  ///< of q, k, v and o
  QuantScheme lm_head = schemes::kBf16;    ///< where it is not the embedding
  uint64_t seed = 0;
};

/// Keys and values of one or several sequences, each of its own length, and the buffers of a forward call on them. Belongs to the Model
/// that made it, which must outlive it. In what follows `sequence` is one of 0 .. sequences() - 1, else kInvalidArgument or, where no
/// Status is returned, 0.
class KvCache {
 public:
  KvCache();
  ~KvCache();
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;

  int64_t sequences() const;
  int64_t length(int64_t sequence = 0) const;  ///< tokens held
  int64_t capacity() const;                    ///< tokens that each sequence has room for
  size_t bytes() const;  ///< of keys and values: on a CPU address space, memory comes as sequences grow; on a GPU memory
  /// Forgets the tokens of a sequence from `length` on. kInvalidArgument unless 0 <= length <= length(sequence).
  Status Truncate(int64_t length, int64_t sequence = 0);

  struct Impl;  ///< opaque

 private:
  friend class Model;
  std::unique_ptr<Impl> impl_;
};

/// Where the time of one decode step goes, in microseconds.
struct StepProfile {
  double weights_us = 0;    ///< matrices: those of attention, dense layers or expert blocks, routers, lm_head
  double attention_us = 0;  ///< keys and values into the cache, scores and sums over it
  double other_us = 0;      ///< the rest: embedding, norms, residual sums, routing, and a router's matrix where it is part of that launch
};

class Model {
 public:
  Model();
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  /// Reads the folder, packs every matrix for its kernel and drops the file again.
  /// Errors: kUnsupported (architecture, rope type, activation: names what was found and what is supported), kCorruptFile (config.json
  /// has a field of the wrong type or range, or a tensor's shape contradicts it: names the tensor and both shapes), kNotFound (a tensor
  /// is missing: names it), kCancelled, and those of Checkpoint::Open, Linear::Create and MoeLayer::Create.
  static Result<Model> Load(const std::filesystem::path& path, const ModelOptions& options = {});

  /// A model of that configuration with random weights (PackedWeight::Random), packed for the kernels that a checkpoint of these schemes
  /// gets, one layer at a time. Norms are near 1, biases and sinks near 0: activations stay finite through any number of layers.
  /// A weight depends on the seed and its name alone.
  /// Errors: those of Load for config_json, and kInvalidArgument where options.panel_cache is set.
  static Result<Model> Random(const RandomModel& spec, const ModelOptions& options = {});

  const ModelConfig& config() const;
  Device device() const;
  /// Longest sequence a cache may hold.
  int64_t max_context() const;
  /// Every matrix in the order in which a forward call reads them.
  std::span<const ModuleSummary> modules() const;
  /// What ModelOptions::panel_cache did; all zero without one.
  const PanelStore::Report& panel_cache() const;

  /// Room for `sequences` sequences of up to max_tokens tokens each. kInvalidArgument where max_tokens is outside 1 .. max_context() or
  /// sequences outside 1 .. kMaxSequences, kOutOfMemory.
  Result<KvCache> NewCache(int64_t max_tokens, int64_t sequences = 1) const;

  /// Appends ids to one sequence of the cache. logits, f32: [T,V] for all ids (T = ids.size()), [1,V] for the last one only, or a view
  /// without data (TensorView()) for none. Rows may be strided. Long inputs run in chunks of kPrefillChunk tokens (kCudaPrefillChunk).
  /// The first calls grow ctx.workspace and the cache's buffers; a later call with no more ids allocates nothing.
  /// Deterministic, independent of ctx.threads.
  /// On a GPU the call is ordered on ctx.stream; logits on the host are there on return, logits on the device when the stream gets there.
  /// Buffers belong to the cache, ctx.workspace is not used.
  /// Errors: kInvalidArgument (no ids, an id outside the vocabulary, more tokens than the cache has room for, a cache of another model, no
  /// such sequence), kShapeMismatch (logits), kOutOfMemory. After an error the cache is as before the call.
  Status Forward(std::span<const int32_t> ids, KvCache& cache, TensorView logits, ExecContext& ctx, int64_t sequence = 0) const;

  /// Forward, then the id of the largest logit of the last token, the smaller id among equals. On a GPU the logits stay there.
  Result<int32_t> ForwardGreedy(std::span<const int32_t> ids, KvCache& cache, ExecContext& ctx, int64_t sequence = 0) const;

  /// Appends ids[b] to sequence b of the cache, for the first B = ids.size() sequences, each at its own length: what B calls of Forward
  /// would do, with one pass over the weights. logits, f32 [B,V]: row b is that of sequence b; rows may be strided; TensorView() for none.
  /// A row depends on its own sequence alone, up to the rounding of another order of sums: that order may change with B and, in a mixture
  /// of experts, with how many rows meet at an expert. A sequence that has ended may run along on any id after Truncate(0, b).
  /// Streams and buffers as in Forward; on a GPU the first step of each B is recorded and later ones replay it (record_decode).
  /// Errors: those of Forward, kInvalidArgument where B is more than cache.sequences(). After an error the cache is as before the call.
  Status DecodeStep(std::span<const int32_t> ids, KvCache& cache, TensorView logits, ExecContext& ctx) const;

  /// DecodeStep, then next[b] = the id of the largest logit of row b, the smaller id among equals. `next` holds B ids, else
  /// kShapeMismatch, and may be the memory of ids. On a GPU the logits stay there, and the call waits for the ids.
  Status DecodeStepGreedy(std::span<const int32_t> ids, KvCache& cache, std::span<int32_t> next, ExecContext& ctx) const;

  /// Times a DecodeStep of ids, `repetitions` times, and leaves the cache as long as it was. Medians. On a CPU clocks run between the
  /// parts of the step. On a GPU the matrices and attention are recorded and replayed alone, and the rest is what the whole recorded
  /// step takes longer than both. For timing only: nothing else of the model knows of it.
  /// Errors: those of DecodeStep, kInvalidArgument unless repetitions >= 1.
  Result<StepProfile> ProfileStep(std::span<const int32_t> ids, KvCache& cache, int repetitions, ExecContext& ctx) const;

  static constexpr int64_t kMaxSequences = 64;  ///< of one cache
  static constexpr int64_t kPrefillChunk = 256;
  static constexpr int64_t kCudaPrefillChunk = 2048;  ///< many rows fill a GPU; logits of all of them leave it in smaller pieces

 private:
  struct Impl;
  static Result<Model> Finish(std::unique_ptr<Impl> impl, const ModelOptions& options);
  std::unique_ptr<Impl> impl_;
};

/// "LlamaForCausalLM", ...: every value of config.json's `architectures` that Model::Load accepts.
std::span<const std::string_view> SupportedArchitectures();

}  // namespace billfish
