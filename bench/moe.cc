#include "billfish/moe.h"

#include <fmt/format.h>

#include "cases.h"
#include "kernel_row.h"
#include "meter.h"
#include "random_input.h"

namespace billfish::bench {
namespace {

/// Fresh routings take turns, so that no call finds the experts of the one before it in a cache.
constexpr int64_t kRoutings = 16;

std::vector<RandomGroups> Routings(const KernelCase& kernel_case, int64_t M) {
  std::vector<RandomGroups> routings;
  for (int64_t i = 0; i < kRoutings; ++i)
    routings.push_back(MakeGroups(M, kernel_case.E, kernel_case.top_k, static_cast<uint64_t>(100 + i)));
  return routings;
}

double BytesPerExpert(const MatrixInfo& matrix) { return static_cast<double>(matrix.weight_bytes) / static_cast<double>(matrix.E); }

Status BenchGrouped(const KernelCase& kernel_case, const QuantScheme& scheme, const std::vector<int64_t>& Ms, const RunOptions& options,
                    const Peak& peak, const Meter& meter, const RowSink& sink) {
  const int64_t N = kernel_case.N, K = kernel_case.K, E = kernel_case.E, top_k = kernel_case.top_k;
  const Result<PackedWeight> weight = PackedWeight::Random(scheme, E, N, K, 1);
  if (!weight) return weight.error();
  std::vector<GroupedLinear> copies;
  const int64_t count = CopiesOf(weight->bytes());
  for (int64_t i = 0; i < count; ++i) {
    Result<GroupedLinear> layer =
        GroupedLinear::Create(*weight, {.activation = options.activation, .mode = options.mode, .kernel = options.kernel, .bias = {}});
    if (!layer) return layer.error();
    copies.push_back(std::move(layer).value());
  }
  for (const int64_t M : Ms) {
    const std::vector<RandomGroups> routings = Routings(kernel_case, M);
    const std::vector<std::byte> x = RandomActivations(M * K, options.activation, 2);
    Workspace y, workspace;  // of whole cache lines, as a model's would be
    if (Status status = y.Reserve(static_cast<size_t>(M * top_k * N) * 4); !status.ok()) return status;
    if (Status status = workspace.Reserve(copies.front().WorkspaceBytes(M * top_k, M)); !status.ok()) return status;
    ExecContext ctx{workspace, options.threads};
    Workload workload;
    workload.copies = count;
    workload.run = [&](int64_t call) {
      const RandomGroups& groups = routings[static_cast<size_t>(call % kRoutings)];
      return copies[static_cast<size_t>(call % count)].Forward(ConstTensorView(x.data(), options.activation, {M, K}), groups.offsets,
                                                               groups.gather, TensorView(y.memory().data(), DType::kF32, {M * top_k, N}),
                                                               ctx);
    };
    const double bytes = static_cast<double>(copies.front().weight_bytes()) / static_cast<double>(E);
    workload.bytes = [&routings, bytes](int64_t call) {
      return bytes * static_cast<double>(routings[static_cast<size_t>(call % kRoutings)].experts_hit);
    };
    workload.operations = 2.0 * static_cast<double>(M * top_k) * static_cast<double>(N) * static_cast<double>(K);
    workload.peak = peak;
    Row row = KernelRow(kernel_case, options, M, copies.front().kernel());
    if (Status status = meter.Measure(workload, row); !status.ok()) return status;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  return {};
}

Status BenchBlock(const KernelCase& kernel_case, const QuantScheme& scheme, const std::vector<int64_t>& Ms, const RunOptions& options,
                  const Peak& peak, const Meter& meter, const RowSink& sink) {
  const int64_t H = kernel_case.K, I = kernel_case.N / 2, E = kernel_case.E, top_k = kernel_case.top_k;
  const Result<PackedWeight> gate_up = PackedWeight::Random(scheme, E, 2 * I, H, 1);
  if (!gate_up) return gate_up.error();
  const Result<PackedWeight> down = PackedWeight::Random(scheme, E, H, I, 2);
  if (!down) return down.error();
  MoeOptions moe_options;
  moe_options.activation.kind = Activation::Kind::kSwiglu;
  moe_options.activation_dtype = options.activation;
  moe_options.mode = options.mode;
  moe_options.kernel = options.kernel;
  std::vector<MoeLayer> copies;
  const int64_t count = CopiesOf(gate_up->bytes() + down->bytes());
  for (int64_t i = 0; i < count; ++i) {
    Result<MoeLayer> layer = MoeLayer::Create(*gate_up, *down, moe_options);
    if (!layer) return layer.error();
    copies.push_back(std::move(layer).value());
  }
  for (const int64_t M : Ms) {
    std::vector<RandomGroups> routings = Routings(kernel_case, M);
    std::vector<float> weights(static_cast<size_t>(M * top_k), 1.0F / static_cast<float>(top_k));
    const std::vector<std::byte> x = RandomActivations(M * H, options.activation, 2);
    Workspace y, workspace;  // of whole cache lines, as a model's would be
    if (Status status = y.Reserve(static_cast<size_t>(M * H) * 4); !status.ok()) return status;
    if (Status status = workspace.Reserve(copies.front().WorkspaceBytes(M, top_k)); !status.ok()) return status;
    ExecContext ctx{workspace, options.threads};
    Workload workload;
    workload.copies = count;
    workload.run = [&](int64_t call) {
      std::vector<int32_t>& ids = routings[static_cast<size_t>(call % kRoutings)].ids;
      const Routing routing{TensorView(ids.data(), DType::kI32, {M, top_k}), TensorView(weights.data(), DType::kF32, {M, top_k})};
      return copies[static_cast<size_t>(call % count)].Forward(ConstTensorView(x.data(), options.activation, {M, H}), routing,
                                                               TensorView(y.memory().data(), DType::kF32, {M, H}), ctx);
    };
    const double bytes = BytesPerExpert(copies.front().gate_up()) + BytesPerExpert(copies.front().down());
    workload.bytes = [&routings, bytes](int64_t call) {
      return bytes * static_cast<double>(routings[static_cast<size_t>(call % kRoutings)].experts_hit);
    };
    workload.operations = 2.0 * static_cast<double>(M * top_k) * 3.0 * static_cast<double>(I) * static_cast<double>(H);
    workload.peak = peak;
    Row row = KernelRow(kernel_case, options, M, copies.front().gate_up().kernel);
    if (Status status = meter.Measure(workload, row); !status.ok()) return status;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  return {};
}

}  // namespace

Status BenchMoe(const KernelCase& kernel_case, const std::vector<int64_t>& Ms, const RunOptions& options, const Limits& limits,
                const RowSink& sink) {
  if (kernel_case.top_k < 1 || kernel_case.top_k > kernel_case.E) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("each token was to choose {} of {} experts; choose from 1 to {}", kernel_case.top_k, kernel_case.E, kernel_case.E)};
  }
  if (kernel_case.whole_block && kernel_case.N % 2 != 0) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("a whole block has as many gate rows as up rows, so N = {} must be even", kernel_case.N)};
  }
  const Result<QuantScheme> scheme = SchemeByName(kernel_case.scheme);
  if (!scheme) return scheme.error();
  Result<BandwidthProbe> probe = BandwidthProbe::Create(options.threads);
  if (!probe) return probe.error();
  const Meter meter(std::move(probe).value(), options.threads, options.budget_s);
  const Peak peak = PeakOf(limits, options.mode == Mode::kFast, options.activation == DType::kF32);
  return (kernel_case.whole_block ? BenchBlock : BenchGrouped)(kernel_case, *scheme, Ms, options, peak, meter, sink);
}

}  // namespace billfish::bench
