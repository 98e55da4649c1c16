#include "billfish/cuda_baseline.h"
#include "billfish/linear.h"
#include "cases.h"
#include "cuda_meter.h"
#include "kernel_row.h"
#include "random_input.h"

namespace billfish::bench {
namespace {

/// Random bf16 numbers on the device, `bytes` of them.
Result<DeviceBuffer> RandomOnDevice(Device device, DType dtype, int64_t count, uint64_t seed) {
  Result<DeviceBuffer> buffer = DeviceBuffer::Allocate(device, static_cast<size_t>(count) * static_cast<size_t>(DTypeBits(dtype)) / 8);
  if (!buffer) return buffer.error();
  const std::vector<std::byte> host = RandomActivations(count, dtype, seed);
  const Status status = CopyTensor(TensorView(buffer->data(), dtype, {count}, device), ConstTensorView(host.data(), dtype, {count}));
  if (!status.ok()) return status;
  return buffer;
}

/// Median microseconds of cuBLASLt on bf16 weights, or 0 where the library is missing.
Result<double> BaselineUs(const CudaMeter& meter, int64_t M, int64_t N, int64_t K, const DeviceBuffer& weights, const void* x, void* y) {
  const Result<CublasLinear> linear = CublasLinear::Create(meter.device(), M, N, K);
  if (!linear) {
    if (linear.error().code() == ErrorCode::kNotFound) return 0.0;
    return linear.error();
  }
  const size_t bytes = static_cast<size_t>(N * K) * 2;
  CudaWorkload workload;
  workload.copies = static_cast<int64_t>(weights.bytes() / bytes);
  workload.run = [&](int64_t call) { return linear->Forward(x, weights.data() + static_cast<size_t>(call) * bytes, y, meter.stream()); };
  return meter.MedianUs(workload);
}

}  // namespace

Status BenchLinearCuda(const KernelCase& kernel_case, const std::vector<int64_t>& Ms, const RunOptions& options, const CudaLimits& limits,
                       const RowSink& sink) {
  const Result<QuantScheme> scheme = SchemeByName(kernel_case.scheme);
  if (!scheme) return scheme.error();
  const int64_t N = kernel_case.N, K = kernel_case.K;
  const Device device = options.device;
  const Result<CudaMeter> meter = CudaMeter::Create(device);
  if (!meter) return meter.error();
  const Result<PackedWeight> weight = PackedWeight::Random(*scheme, 1, N, K, 1);
  if (!weight) return weight.error();
  std::vector<Linear> copies;
  const int64_t count = CudaCopiesOf(weight->bytes());
  for (int64_t i = 0; i < count; ++i) {
    Result<Linear> linear = Linear::Create(
        *weight, {.activation = options.activation, .mode = options.mode, .device = device, .kernel = options.kernel, .bias = {}});
    if (!linear) return linear.error();
    copies.push_back(std::move(linear).value());
  }
  const int64_t dense_copies = CudaCopiesOf(static_cast<size_t>(N * K) * 2);
  const Result<DeviceBuffer> dense = RandomOnDevice(device, DType::kBF16, dense_copies * N * K, 3);
  if (!dense) return dense.error();

  for (const int64_t M : Ms) {
    const Result<DeviceBuffer> x = RandomOnDevice(device, options.activation, M * K, 2);
    if (!x) return x.error();
    const Result<DeviceBuffer> y = DeviceBuffer::Allocate(device, static_cast<size_t>(M * N) * 4);
    if (!y) return y.error();
    // Calls of a graph run one after the other, so they may share their scratch.
    const Result<DeviceBuffer> scratch = DeviceBuffer::Allocate(device, std::max<size_t>(copies.front().WorkspaceBytes(M), 256));
    if (!scratch) return scratch.error();
    Workspace workspace(scratch->span());
    ExecContext ctx{workspace, 1, meter->stream()};
    const auto operations = 2.0 * static_cast<double>(M) * static_cast<double>(N) * static_cast<double>(K);
    CudaWorkload workload;
    workload.copies = count;
    workload.run = [&](int64_t call) {
      return copies[static_cast<size_t>(call)].Forward(ConstTensorView(x->data(), options.activation, {M, K}, device),
                                                       TensorView(y->data(), options.activation, {M, N}, device), ctx);
    };
    workload.bytes = static_cast<double>(copies.front().weight_bytes());
    workload.operations = operations;
    Row row = KernelRow(kernel_case, options, M, copies.front().kernel());
    if (Status status = meter->Measure(workload, limits, row); !status.ok()) return status;
    const Result<double> baseline = BaselineUs(*meter, M, N, K, *dense, x->data(), y->data());
    if (!baseline) return baseline.error();
    row.baseline = *baseline > 0 ? "cublasLt bf16" : "";
    row.baseline_us = *baseline;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  return {};
}

}  // namespace billfish::bench
