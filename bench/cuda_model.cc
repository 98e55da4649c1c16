#include <chrono>
#include <functional>

#include "cases.h"
#include "model_run.h"

namespace billfish::bench {
namespace {

constexpr size_t kLeastRepetitions = 5, kMostRepetitions = 200;

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
    times.push_back(seconds / calls);
    spent += seconds;
  }
  FillRow(times, cost, RoofOf(limits), row);
  return {};
}

}  // namespace

Status BenchModelCuda(const ModelCase& model_case, const RunOptions& options, const CudaLimits& limits, const RowSink& sink) {
  const int64_t pp = model_case.pp, tg = model_case.tg;
  Result<ModelRun> loaded = LoadModelRun(model_case, options);
  if (!loaded) return loaded.error();
  const Model& model = loaded->model;
  KvCache& cache = loaded->cache;
  const std::vector<int32_t>& ids = loaded->ids;
  Row& row = loaded->row;
  Workspace workspace;
  ExecContext ctx{workspace, options.threads};

  if (pp > 0) {
    const auto prefill = [&]() -> Status {
      if (Status status = cache.Truncate(0); !status.ok()) return status;
      return model.ForwardGreedy(std::span(ids).first(static_cast<size_t>(pp)), cache, ctx).status();
    };
    row.op = "prefill";
    row.M = pp;
    if (Status status = Time(prefill, 1, CostOf(model, pp), options.budget_s, limits, row); !status.ok()) return status;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  for (const int64_t batch : tg > 0 ? model_case.batches : std::vector<int64_t>()) {
    std::vector<int32_t> next(static_cast<size_t>(batch));
    const auto decode = [&]() -> Status {
      if (Status status = loaded->Truncate(0); !status.ok()) return status;
      for (int64_t i = 0; i < tg; ++i) {
        if (Status status = model.DecodeStepGreedy(loaded->StepIds(i, batch), cache, next, ctx); !status.ok()) return status;
      }
      return {};
    };
    row.op = "decode";
    row.M = batch;
    const Cost cost = CostOf(model, batch);
    if (Status status = Time(decode, static_cast<double>(tg), cost, options.budget_s, limits, row); !status.ok()) return status;
    if (Status status = SplitStep(*loaded, tg, options.budget_s, ctx); !status.ok()) return status;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  return {};
}

}  // namespace billfish::bench
