// Text generation over a Model: sampling, the decode loop, and perplexity.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "billfish/model.h"

namespace billfish {

struct SamplingOptions {
  float temperature = 0;  ///< 0 = greedy: the largest logit, the smaller id among equals; the fields below are then unused
  int64_t top_k = 0;      ///< keep the k most likely; 0 = all
  float top_p = 1;        ///< keep the most likely until their sum reaches p; 0 < p <= 1
  float min_p = 0;        ///< keep those at least min_p times as likely as the most likely; 0 <= min_p <= 1
  uint64_t seed = 0;
  /// kInvalidArgument with the field, its value and its range, else ok.
  Status Validate() const;
};

/// Draws token ids from logits. p = softmax(logits / temperature), cut by top_k, then top_p, then min_p, renormalised.
/// The random numbers are SplitMix64 of `seed` (Steele, Lea, Flood 2014), its upper 53 bits as a fraction: the same on every platform.
class Sampler {
 public:
  static Result<Sampler> Create(const SamplingOptions& options);
  /// Allocates on the first call only. A NaN logit is never drawn unless all are NaN, then id 0. Precondition: logits is not empty.
  int32_t Next(std::span<const float> logits);

 private:
  explicit Sampler(const SamplingOptions& options);
  double Uniform();

  struct Candidate {
    float logit;
    int32_t id;
  };
  SamplingOptions options_;
  uint64_t state_;
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
};

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  SamplingOptions sampling;
  std::vector<int32_t> stop_ids;  ///< besides the model's own eos ids
  bool ignore_eos = false;        ///< the model's eos ids do not stop; stop_ids still do
};

enum class StopReason : uint8_t {
  kLength,     ///< max_new_tokens
  kStopId,     ///< a stop id was drawn; it is the last of ids
  kContext,    ///< the cache is full
  kCancelled,  ///< the callback returned false
};

/// Lower-case name, for example "stop id".
std::string_view StopReasonName(StopReason reason);

struct GenerateResult {
  std::vector<int32_t> ids;  ///< the new tokens only
  StopReason stop = StopReason::kLength;
  int64_t prompt_tokens = 0;
  double prefill_seconds = 0;
  int64_t decode_steps = 0;  ///< forward calls of one token; the first new token comes from the prefill
  double decode_seconds = 0;

  double prefill_tokens_per_second() const { return prefill_seconds > 0 ? static_cast<double>(prompt_tokens) / prefill_seconds : 0; }
  double decode_tokens_per_second() const { return decode_seconds > 0 ? static_cast<double>(decode_steps) / decode_seconds : 0; }
};

/// Appends the prompt to the cache, then draws up to max_new_tokens tokens. on_token (may be empty) sees each new token as it is drawn,
/// and stops by returning false. The last drawn token is not in the cache yet: a continued chat begins its next prompt with it.
/// Errors: kInvalidArgument (empty prompt, max_new_tokens < 1, sampling) and those of Model::Forward.
Result<GenerateResult> Generate(const Model& model, std::span<const int32_t> prompt, const GenerateOptions& options, KvCache& cache,
                                ExecContext& ctx, const std::function<bool(int32_t)>& on_token = {});

struct PerplexityProgress {
  int64_t windows_done = 0;
  int64_t windows = 0;
  double mean_nll = 0;  ///< so far
};

struct PerplexityResult {
  double mean_nll = 0;  ///< natural logarithm, per predicted token
  double perplexity = 0;
  int64_t tokens = 0;  ///< predicted
  int64_t windows = 0;
  double seconds = 0;
};

/// Window w feeds ids[w*window .. w*window + window) to an empty cache and scores every next token, ids[w*window + 1 ..
/// w*window + window]; all windows weigh the same. windows = 0 takes as many as ids hold; the last window may score one token less where
/// ids end with it. progress (may be empty) is called after each window; false stops with kCancelled.
/// Errors: kInvalidArgument (window < 2, more windows than ids hold) and those of Model::Forward.
Result<PerplexityResult> Perplexity(const Model& model, std::span<const int32_t> ids, int64_t window, int64_t windows, ExecContext& ctx,
                                    const std::function<bool(const PerplexityProgress&)>& progress = {});

}  // namespace billfish
