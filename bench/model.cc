#include "cases.h"
#include "meter.h"
#include "model_run.h"

namespace billfish::bench {
namespace {

/// A model this small stays in the caches from token to token: its decode rate is no statement about memory.
constexpr size_t kCachedBytes = 190'000'000;

}  // namespace

Status BenchModel(const ModelCase& model_case, const RunOptions& options, const Limits& limits, const RowSink& sink) {
  const int64_t pp = model_case.pp, tg = model_case.tg;
  Result<ModelRun> loaded = LoadModelRun(model_case, options);
  if (!loaded) return loaded.error();
  const Model& model = loaded->model;
  KvCache& cache = loaded->cache;
  const std::vector<int32_t>& ids = loaded->ids;
  Row& row = loaded->row;
  Result<BandwidthProbe> probe = BandwidthProbe::Create(options.threads);
  if (!probe) return probe.error();
  const Meter meter(std::move(probe).value(), options.threads, options.budget_s);
  const Peak peak = PeakOf(limits, options.mode == Mode::kFast, options.activation == DType::kF32);

  std::vector<float> logits(static_cast<size_t>(model.config().vocab));
  Workspace workspace;
  ExecContext ctx{workspace, options.threads};

  Workload workload;
  workload.peak = peak;
  if (pp > 0) {
    const TensorView last(logits.data(), DType::kF32, {1, model.config().vocab});
    workload.run = [&, last](int64_t) {
      if (Status status = cache.Truncate(0); !status.ok()) return status;
      return model.Forward(std::span(ids).first(static_cast<size_t>(pp)), cache, last, ctx);
    };
    const Cost cost = CostOf(model, pp);
    workload.bytes = [cost](int64_t) { return cost.bytes; };
    workload.operations = cost.operations;
    row.op = "prefill";
    row.M = pp;
    if (Status status = meter.Measure(workload, row); !status.ok()) return status;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  for (const int64_t batch : tg > 0 ? model_case.batches : std::vector<int64_t>()) {
    // One call generates tg tokens of each sequence; its row is stated for one step.
    logits.resize(static_cast<size_t>(batch * model.config().vocab));
    const TensorView rows(logits.data(), DType::kF32, {batch, model.config().vocab});
    workload.run = [&](int64_t) {
      if (Status status = loaded->Truncate(0); !status.ok()) return status;
      for (int64_t i = 0; i < tg; ++i) {
        if (Status status = model.DecodeStep(loaded->StepIds(i, batch), cache, rows, ctx); !status.ok()) return status;
      }
      return Status();
    };
    const Cost cost = CostOf(model, batch);
    const auto steps = static_cast<double>(tg);
    workload.bytes = [cost, steps](int64_t) { return cost.bytes * steps; };
    workload.operations = cost.operations * steps;
    row.op = "decode";
    row.M = batch;
    if (Status status = meter.Measure(workload, row); !status.ok()) return status;
    row.median_us /= steps;
    row.tokens_per_s *= steps;
    if (Status status = SplitStep(*loaded, tg, options.budget_s, ctx); !status.ok()) return status;
    if (loaded->heaviest.total_bytes < kCachedBytes && row.limit == "read bandwidth") row.limit = "read (in cache)";
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  return {};
}

}  // namespace billfish::bench
