#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "billfish/generate.h"
#include "core/parallel.h"
#include "core/status_macros.h"
#include "model/vector_ops.h"

namespace billfish {

Result<PerplexityResult> Perplexity(const Model& model, std::span<const int32_t> ids, int64_t window, int64_t windows, ExecContext& ctx,
                                    const std::function<bool(const PerplexityProgress&)>& progress) {
  const auto count = static_cast<int64_t>(ids.size());
  if (window < 2) return Status(ErrorCode::kInvalidArgument, fmt::format("the window is {} tokens; it must be at least 2", window));
  const int64_t available = count / window;
  if (windows < 0 || windows > available || available == 0) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} windows of {} tokens were asked for; the {} ids hold {}", windows, window, count, available));
  }
  if (windows == 0) windows = available;
  const int64_t V = model.config().vocab;
  BILLFISH_ASSIGN_OR_RETURN(KvCache cache, model.NewCache(window));
  std::vector<float> logits(static_cast<size_t>(window * V));
  std::vector<double> losses(static_cast<size_t>(window));
  PerplexityResult result;
  double sum_of_means = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t w = 0; w < windows; ++w) {
    BILLFISH_RETURN_IF_ERROR(cache.Truncate(0));
    BILLFISH_RETURN_IF_ERROR(model.Forward(ids.subspan(static_cast<size_t>(w * window), static_cast<size_t>(window)), cache,
                                           {logits.data(), DType::kF32, {window, V}}, ctx));
    const int64_t scored = std::min(window, count - w * window - 1);
    ParallelFor(ctx.threads, scored, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const float* row = logits.data() + t * V;
        losses[static_cast<size_t>(t)] =
            model::Ops().log_sum_exp(row, V) - static_cast<double>(row[ids[static_cast<size_t>(w * window + t + 1)]]);
      }
    });
    double sum = 0;
    for (int64_t t = 0; t < scored; ++t) sum += losses[static_cast<size_t>(t)];
    sum_of_means += sum / static_cast<double>(scored);
    result.tokens += scored;
    result.windows = w + 1;
    result.mean_nll = sum_of_means / static_cast<double>(result.windows);
    if (progress && !progress({result.windows, windows, result.mean_nll})) {
      return Status(ErrorCode::kCancelled, fmt::format("the evaluation was stopped after {} of {} windows", result.windows, windows));
    }
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.perplexity = std::exp(result.mean_nll);
  return result;
}

}  // namespace billfish
