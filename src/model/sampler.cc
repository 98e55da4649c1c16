#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "billfish/generate.h"

namespace billfish {

Status SamplingOptions::Validate() const {
  const auto wrong = [](const char* field, auto value, const char* range) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} is {}; it must be {}", field, value, range));
  };
  if (!(temperature >= 0) || !std::isfinite(temperature)) return wrong("temperature", temperature, "a finite number of at least 0");
  if (top_k < 0) return wrong("top_k", top_k, "at least 0");
  if (!(top_p > 0 && top_p <= 1)) return wrong("top_p", top_p, "above 0 and at most 1");
  if (!(min_p >= 0 && min_p <= 1)) return wrong("min_p", min_p, "from 0 to 1");
  return OkStatus();
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), state_(options.seed) {}

Result<Sampler> Sampler::Create(const SamplingOptions& options) {
  if (Status status = options.Validate(); !status.ok()) return status;
  return Sampler(options);
}

double Sampler::Uniform() {
  state_ += 0x9E3779B97F4A7C15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

int32_t Sampler::Next(std::span<const float> logits) {
  if (options_.temperature == 0) {
    size_t best = 0;
    bool found = false;
    for (size_t i = 0; i < logits.size(); ++i) {
      if (std::isnan(logits[i])) continue;
      if (!found || logits[i] > logits[best]) best = i;
      found = true;
    }
    return static_cast<int32_t>(best);
  }
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isnan(logits[i])) candidates_.push_back({logits[i], static_cast<int32_t>(i)});
  }
  if (candidates_.empty()) return 0;
  const auto more_likely = [](const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; };
  size_t kept = candidates_.size();
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < kept) {
    kept = static_cast<size_t>(options_.top_k);
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(kept), candidates_.end(), more_likely);
  } else {
    std::sort(candidates_.begin(), candidates_.end(), more_likely);
  }
  weights_.resize(kept);
  double total = 0;
  for (size_t i = 0; i < kept; ++i) {
    // An infinite logit wins alone; inf - inf would be NaN.
    const double gap =
        candidates_[i].logit == candidates_[0].logit ? 0.0 : static_cast<double>(candidates_[i].logit) - candidates_[0].logit;
    weights_[i] = std::exp(gap / options_.temperature);
    total += weights_[i];
  }
  double sum = 0;
  size_t used = 0;
  while (used < kept && (used == 0 || sum < options_.top_p * total) && weights_[used] >= options_.min_p * weights_[0])
    sum += weights_[used++];
  double draw = Uniform() * sum;
  for (size_t i = 0; i + 1 < used; ++i) {
    draw -= weights_[i];
    if (draw < 0) return candidates_[i].id;
  }
  return candidates_[used - 1].id;
}

}  // namespace billfish
