#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "billfish/moe.h"
#include "core/parallel.h"
#include "core/rounding.h"
#include "core/status_macros.h"

namespace billfish {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr int64_t kMostGroups = 1 << 12;
// Below this many logits a call a parallel region costs more than it saves.
constexpr int64_t kInlineLogits = 1 << 13;

float Score(RouterRule::Score kind, float logit) {
  if (kind == RouterRule::Score::kSigmoid) return 1.0f / (1.0f + std::exp(-logit));
  if (kind == RouterRule::Score::kSqrtSoftplus) return std::sqrt(std::max(logit, 0.0f) + std::log1p(std::exp(-std::fabs(logit))));
  return logit;
}

// Routes one token; `choice` [E] and `worth` [n_group] are scratch.
class TokenRouter {
 public:
  TokenRouter(const RouterRule& rule, float* scratch) : rule_(rule), choice_(scratch), worth_(scratch + rule.E) {}

  void Route(const float* logits, const int32_t* fixed_ids, int32_t* ids, float* weights) {
    float softmax_top = 0, softmax_sum = 0;
    if (rule_.score == RouterRule::Score::kSoftmax) {
      softmax_top = *std::max_element(logits, logits + rule_.E);
      for (int64_t e = 0; e < rule_.E; ++e) softmax_sum += std::exp(logits[e] - softmax_top);
    }
    const auto score = [&](int64_t e) {
      if (rule_.score == RouterRule::Score::kSoftmax) return std::exp(logits[e] - softmax_top) / softmax_sum;
      return Score(rule_.score, logits[e]);
    };

    if (fixed_ids != nullptr) {
      std::copy_n(fixed_ids, rule_.top_k, ids);
    } else if (rule_.correction.empty() && rule_.n_group == 1) {
      TakeBest(logits, ids, weights);  // every score rises with its logit
    } else {
      for (int64_t e = 0; e < rule_.E; ++e) {
        choice_[e] = score(e) + (rule_.correction.empty() ? 0.0f : rule_.correction[static_cast<size_t>(e)]);
      }
      if (rule_.n_group > 1) KeepBestGroups();
      TakeBest(choice_, ids, weights);
    }
    for (int64_t j = 0; j < rule_.top_k; ++j) weights[j] = score(ids[j]);
    Normalize(weights);
  }

 private:
  // Insertion into a short sorted list; only a strictly larger value passes an earlier one, so ties go to the smaller id. Not-a-number
  // never passes, and every id is valid whatever the logits are.
  void TakeBest(const float* values, int32_t* ids, float* best) const {
    int64_t count = 0;
    for (int64_t e = 0; e < rule_.E; ++e) {
      const float value = values[e];
      if (count == rule_.top_k && !(value > best[count - 1])) continue;
      int64_t place = count < rule_.top_k ? count++ : count - 1;
      for (; place > 0 && value > best[place - 1]; --place) {
        best[place] = best[place - 1];
        ids[place] = ids[place - 1];
      }
      best[place] = value;
      ids[place] = static_cast<int32_t>(e);
    }
  }

  void KeepBestGroups() {
    const int64_t size = rule_.E / rule_.n_group;
    for (int64_t g = 0; g < rule_.n_group; ++g) {
      float first = kNever, second = kNever;
      for (int64_t e = g * size; e < (g + 1) * size; ++e) {
        if (choice_[e] > first) {
          second = first;
          first = choice_[e];
        } else if (choice_[e] > second) {
          second = choice_[e];
        }
      }
      worth_[g] = size > 1 ? first + second : first;
    }
    for (int64_t g = 0; g < rule_.n_group; ++g) {
      int64_t better = 0;
      for (int64_t other = 0; other < rule_.n_group; ++other) {
        better += worth_[other] > worth_[g] || (worth_[other] == worth_[g] && other < g) ? 1 : 0;
      }
      if (better >= rule_.topk_group) std::fill_n(choice_ + g * size, size, kNever);
    }
  }

  void Normalize(float* weights) const {
    const int64_t k = rule_.top_k;
    if (rule_.score == RouterRule::Score::kTopKSoftmax) {
      const float top = *std::max_element(weights, weights + k);
      float sum = 0;
      for (int64_t j = 0; j < k; ++j) sum += weights[j] = std::exp(weights[j] - top);
      for (int64_t j = 0; j < k; ++j) weights[j] /= sum;
    }
    if (rule_.renormalize) {
      float sum = 1e-20f;
      for (int64_t j = 0; j < k; ++j) sum += weights[j];
      for (int64_t j = 0; j < k; ++j) weights[j] /= sum;
    }
    for (int64_t j = 0; j < k; ++j) weights[j] *= rule_.routed_scaling;
  }

  const RouterRule& rule_;
  float* choice_;
  float* worth_;
};

size_t ScratchFloats(const RouterRule& rule) { return RoundUp(static_cast<size_t>(rule.E + rule.n_group), 16); }

Status CheckViews(const ConstTensorView& logits, const RouterRule& rule, const Routing& out) {
  if (logits.rank() != 2 || logits.dim(1) != rule.E || logits.dtype() != DType::kF32 || (rule.E > 1 && logits.stride(1) != 1)) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("router logits are {}; give f32[T, {}] with the experts side by side", logits.ToString(), rule.E)};
  }
  const int64_t T = logits.dim(0);
  const auto fits = [&](const TensorView& view, DType dtype) {
    return view.rank() == 2 && view.dim(0) == T && view.dim(1) == rule.top_k && view.dtype() == dtype && view.is_contiguous();
  };
  if (!fits(out.ids, DType::kI32) || !fits(out.weights, DType::kF32)) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("routing of {} tokens to {} experts each goes to ids {} and weights {}; give contiguous "
                        "i32[{}, {}] and f32[{}, {}]",
                        T, rule.top_k, out.ids.ToString(), out.weights.ToString(), T, rule.top_k, T, rule.top_k)};
  }
  return OkStatus();
}

Status CheckTokenIds(const RouterRule& rule, std::span<const int32_t> token_ids, int64_t T) {
  const int64_t vocab = static_cast<int64_t>(rule.hash_table.size()) / rule.top_k;
  if (static_cast<int64_t>(token_ids.size()) != T) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("hash routing of {} tokens got {} token ids; give one for each token", T, token_ids.size())};
  }
  for (size_t t = 0; t < token_ids.size(); ++t) {
    if (token_ids[t] >= 0 && token_ids[t] < vocab) continue;
    return {ErrorCode::kInvalidArgument, fmt::format("token {} has id {}; the hash table has rows 0..{}", t, token_ids[t], vocab - 1)};
  }
  return OkStatus();
}

// The parts of RouterRule::Validate that cost nothing; the tables were checked when the rule was made.
Status CheckRule(const RouterRule& rule) {
  if (rule.E >= 1 && rule.top_k >= 1 && rule.top_k <= rule.E && rule.n_group >= 1 && rule.n_group <= kMostGroups &&
      rule.E % rule.n_group == 0 && (rule.correction.empty() || static_cast<int64_t>(rule.correction.size()) == rule.E) &&
      static_cast<int64_t>(rule.hash_table.size()) % rule.top_k == 0) {
    return OkStatus();
  }
  const Status why = rule.Validate();
  return why.ok()
             ? Status(ErrorCode::kInvalidArgument, fmt::format("n_group = {}; a router has at most {} groups", rule.n_group, kMostGroups))
             : why;
}

}  // namespace

size_t RouteWorkspaceBytes(int64_t, const RouterRule& rule) {
  // One scratch row for each of as many threads as a call may sensibly have.
  constexpr size_t kThreads = 64;
  return ScratchFloats(rule) * sizeof(float) * kThreads;
}

Status RouteTopK(ConstTensorView logits, const RouterRule& rule, std::span<const int32_t> token_ids, Routing out, ExecContext& ctx) {
  BILLFISH_RETURN_IF_ERROR(CheckRule(rule));
  BILLFISH_RETURN_IF_ERROR(CheckViews(logits, rule, out));
  const int64_t T = logits.dim(0);
  const bool hashed = !rule.hash_table.empty();
  if (hashed) BILLFISH_RETURN_IF_ERROR(CheckTokenIds(rule, token_ids, T));
  const size_t row = ScratchFloats(rule);
  const std::span<std::byte> memory = ctx.workspace.memory();
  const int room = static_cast<int>(std::min<size_t>(memory.size() / (row * sizeof(float)), 1 << 12));
  if (room < 1) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("routing needs a workspace of {} bytes and it has {}; Reserve(RouteWorkspaceBytes(T, rule)) first",
                        RouteWorkspaceBytes(T, rule), memory.size())};
  }
  const int threads = T * rule.E <= kInlineLogits ? 1 : static_cast<int>(std::clamp<int64_t>(std::min(ctx.threads, room), 1, T));
  RunOnThreads(threads, [&](int thread) {
    TokenRouter router(rule, reinterpret_cast<float*>(memory.data()) + static_cast<size_t>(thread) * row);
    for (int64_t t = T * thread / threads; t < T * (thread + 1) / threads; ++t) {
      const int32_t* fixed = hashed ? rule.hash_table.data() + token_ids[static_cast<size_t>(t)] * rule.top_k : nullptr;
      router.Route(logits.as<float>() + t * logits.stride(0), fixed, out.ids.as<int32_t>() + t * rule.top_k,
                   out.weights.as<float>() + t * rule.top_k);
    }
  });
  return OkStatus();
}

}  // namespace billfish
