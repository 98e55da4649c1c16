#include "billfish/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "cases.h"
#include "model_cost.h"

namespace billfish::bench {
namespace {

constexpr size_t kLeastRepetitions = 5, kMostRepetitions = 200;

double Quantile(const std::vector<double>& sorted, double q) {
  return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1) + 0.5)];
}

// Repeats `call` of `tokens` forward calls for the budget and states the row for one of them.
Status Time(const std::function<Status()>& call, double calls, const Cost& cost, double budget_s, const CudaLimits& limits, Row& row) {
  std::vector<double> times;
  double spent = 0;
  // The first two compile nothing any more, but grow buffers, record and bring clocks up.
  for (size_t repetition = 0; repetition < kMostRepetitions && (repetition < kLeastRepetitions + 2 || spent < budget_s); ++repetition) {
    const auto begin = std::chrono::steady_clock::now();
    if (Status status = call(); !status.ok()) return status;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (repetition < 2) continue;
    times.push_back(seconds * 1e6 / calls);
    spent += seconds;
  }
  std::sort(times.begin(), times.end());
  const double us = Quantile(times, 0.5);
  row.repetitions = static_cast<int>(times.size());
  row.median_us = us;
  row.spread = (Quantile(times, 0.75) - Quantile(times, 0.25)) / us;
  row.gb_per_s = cost.bytes / us / 1e3;
  row.gflop_per_s = cost.operations / us / 1e3;
  row.tokens_per_s = static_cast<double>(row.M) / us * 1e6;
  const double read_us = cost.bytes / limits.read_bandwidth * 1e6;
  const double matmul_us = limits.bf16_matmul > 0 ? cost.operations / limits.bf16_matmul * 1e6 : 0;
  row.limit = read_us >= matmul_us ? "read bandwidth" : "bf16 matmul";
  row.limit_value = (read_us >= matmul_us ? limits.read_bandwidth : limits.bf16_matmul) / 1e9;
  row.fraction = std::max(read_us, matmul_us) / us;
  return {};
}

}  // namespace

Status BenchModelCuda(const std::filesystem::path& path, int64_t pp, int64_t tg, const RunOptions& options, const CudaLimits& limits,
                      const RowSink& sink) {
  ModelOptions model_options;
  model_options.activation = options.activation;
  model_options.mode = options.mode;
  model_options.kernel = options.kernel;
  model_options.device = options.device;
  const Result<Model> model = Model::Load(path, model_options);
  if (!model) return model.error();
  const int64_t longest = std::max(pp, tg);
  if (longest < 1) return {ErrorCode::kInvalidArgument, "both --pp and --tg are 0, so there is nothing to time; give at least one of them"};
  if (longest > model->max_context()) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{} tokens were asked for, but the model's longest sequence is {}; give smaller --pp and --tg", longest,
                        model->max_context())};
  }
  Result<KvCache> cache = model->NewCache(longest);
  if (!cache) return cache.error();
  std::vector<int32_t> ids(static_cast<size_t>(longest));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * 7919 + 13) % static_cast<size_t>(model->config().vocab));
  Workspace workspace;
  ExecContext ctx{workspace, options.threads};

  Row row;
  row.name = path.filename().empty() ? path.parent_path().filename().string() : path.filename().string();
  const Heaviest heaviest = FindHeaviest(*model);
  row.kernel = heaviest.kernel;
  row.scheme = heaviest.scheme;
  row.mode = options.mode == Mode::kFast ? "fast" : "exact";
  row.activation = DTypeName(options.activation);
  row.E = std::max<int64_t>(1, model->config().experts);
  row.top_k = std::max<int64_t>(1, model->config().top_k);
  row.threads = options.threads;
  if (pp > 0) {
    const auto prefill = [&]() -> Status {
      if (Status status = cache->Truncate(0); !status.ok()) return status;
      return model->ForwardGreedy(std::span(ids).first(static_cast<size_t>(pp)), *cache, ctx).status();
    };
    row.op = "prefill";
    row.M = pp;
    if (Status status = Time(prefill, 1, CostOf(*model, pp), options.budget_s, limits, row); !status.ok()) return status;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  if (tg > 0) {
    const auto decode = [&]() -> Status {
      if (Status status = cache->Truncate(0); !status.ok()) return status;
      int32_t id = ids[0];
      for (int64_t i = 0; i < tg; ++i) {
        const Result<int32_t> next = model->ForwardGreedy({&id, 1}, *cache, ctx);
        if (!next) return next.error();
        id = *next;
      }
      return {};
    };
    row.op = "decode";
    row.M = 1;
    if (Status status = Time(decode, static_cast<double>(tg), CostOf(*model, 1), options.budget_s, limits, row); !status.ok())
      return status;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  return {};
}

}  // namespace billfish::bench
