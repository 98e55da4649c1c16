#include <algorithm>

#include "billfish/linear.h"
#include "cases.h"
#include "kernel_row.h"
#include "meter.h"
#include "random_input.h"

namespace billfish::bench {

Status BenchLinear(const KernelCase& kernel_case, const std::vector<int64_t>& Ms, const RunOptions& options, const Limits& limits,
                   const RowSink& sink) {
  const Result<QuantScheme> scheme = SchemeByName(kernel_case.scheme);
  if (!scheme) return scheme.error();
  const int64_t N = kernel_case.N, K = kernel_case.K;
  const Result<PackedWeight> weight = PackedWeight::Random(*scheme, 1, N, K, 1);
  if (!weight) return weight.error();
  std::vector<Linear> copies;
  const int64_t count = CopiesOf(weight->bytes());
  for (int64_t i = 0; i < count; ++i) {
    Result<Linear> linear =
        Linear::Create(*weight, {.activation = options.activation, .mode = options.mode, .kernel = options.kernel, .bias = {}});
    if (!linear) return linear.error();
    copies.push_back(std::move(linear).value());
  }
  Result<BandwidthProbe> probe = BandwidthProbe::Create(options.threads);
  if (!probe) return probe.error();
  const Meter meter(std::move(probe).value(), options.threads, options.budget_s);
  const Peak peak = PeakOf(limits, options.mode == Mode::kFast, options.activation == DType::kF32);

  for (const int64_t M : Ms) {
    const std::vector<std::byte> x = RandomActivations(M * K, options.activation, 2);
    Workspace y, workspace;  // of whole cache lines, as a model's would be
    if (Status status = y.Reserve(static_cast<size_t>(M * N) * 4); !status.ok()) return status;
    if (Status status = workspace.Reserve(copies.front().WorkspaceBytes(M)); !status.ok()) return status;
    ExecContext ctx{workspace, options.threads};
    Workload workload;
    workload.copies = count;
    workload.run = [&](int64_t call) {
      return copies[static_cast<size_t>(call % count)].Forward(ConstTensorView(x.data(), options.activation, {M, K}),
                                                               TensorView(y.memory().data(), DType::kF32, {M, N}), ctx);
    };
    const auto bytes = static_cast<double>(copies.front().weight_bytes());
    workload.bytes = [bytes](int64_t) { return bytes; };
    workload.operations = 2.0 * static_cast<double>(M) * static_cast<double>(N) * static_cast<double>(K);
    workload.peak = peak;
    Row row = KernelRow(kernel_case, options, M, copies.front().kernel());
    if (Status status = meter.Measure(workload, row); !status.ok()) return status;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  return {};
}

}  // namespace billfish::bench
