#include "billfish/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/status_macros.h"

namespace billfish {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::string_view StopReasonName(StopReason reason) {
  constexpr std::string_view kNames[] = {"length", "stop id", "context", "cancelled"};
  return kNames[static_cast<size_t>(reason)];
}

Result<GenerateResult> Generate(const Model& model, std::span<const int32_t> prompt, const GenerateOptions& options, KvCache& cache,
                                ExecContext& ctx, const std::function<bool(int32_t)>& on_token) {
  if (options.max_new_tokens < 1) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("max_new_tokens is {}; it must be at least 1", options.max_new_tokens));
  }
  BILLFISH_ASSIGN_OR_RETURN(Sampler sampler, Sampler::Create(options.sampling));
  std::vector<float> logits(static_cast<size_t>(model.config().vocab));
  const TensorView view(logits.data(), DType::kF32, {1, model.config().vocab});
  const auto stops = [&](int32_t id) {
    const auto in = [id](const std::vector<int32_t>& ids) { return std::find(ids.begin(), ids.end(), id) != ids.end(); };
    return in(options.stop_ids) || (!options.ignore_eos && in(model.config().eos_ids));
  };
  // A greedy choice on a GPU is made there: the logits need not travel.
  const bool on_device = options.sampling.temperature == 0 && model.device().kind == Device::Kind::kCuda;
  const auto next = [&](std::span<const int32_t> ids) -> Result<int32_t> {
    if (on_device) return model.ForwardGreedy(ids, cache, ctx);
    BILLFISH_RETURN_IF_ERROR(model.Forward(ids, cache, view, ctx));
    return sampler.Next(logits);
  };
  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(prompt.size());
  auto start = std::chrono::steady_clock::now();
  BILLFISH_ASSIGN_OR_RETURN(int32_t id, next(prompt));
  result.prefill_seconds = SecondsSince(start);
  while (true) {
    result.ids.push_back(id);
    const bool go_on = !on_token || on_token(id);
    if (stops(id)) {
      result.stop = StopReason::kStopId;
    } else if (!go_on) {
      result.stop = StopReason::kCancelled;
    } else if (static_cast<int64_t>(result.ids.size()) >= options.max_new_tokens) {
      result.stop = StopReason::kLength;
    } else if (cache.length() >= cache.capacity()) {
      result.stop = StopReason::kContext;
    } else {
      start = std::chrono::steady_clock::now();
      const int32_t previous = id;
      BILLFISH_ASSIGN_OR_RETURN(id, next({&previous, 1}));
      result.decode_seconds += SecondsSince(start);
      ++result.decode_steps;
      continue;
    }
    return result;
  }
}

}  // namespace billfish
