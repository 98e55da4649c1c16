#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "billfish/moe.h"
#include "cases.h"
#include "cuda_meter.h"
#include "kernel_row.h"
#include "random_input.h"

namespace billfish::bench {
namespace {

/// Bytes of layers beyond which calls of a round share layers, at other experts.
constexpr double kMostHeldBytes = 1.6e9;

/// Router logits of T tokens, f32 [T, E]. Uniform: independent, so every expert is as likely as any other. Zipf: expert r (in a random
/// order) is favoured by -log(1 + r), so that its share of the tokens falls like 1 / (1 + r).
std::vector<float> RouterLogits(int64_t T, int64_t E, bool zipf, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<int64_t> rank(static_cast<size_t>(E));
  std::iota(rank.begin(), rank.end(), 0);
  std::shuffle(rank.begin(), rank.end(), rng);
  std::vector<float> logits(static_cast<size_t>(T * E));
  // Adding Gumbel noise to log-probabilities and taking the largest draws without replacement from them.
  std::uniform_real_distribution<double> uniform(1e-12, 1.0);
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t e = 0; e < E; ++e) {
      const double log_share = zipf ? -std::log(1.0 + static_cast<double>(rank[static_cast<size_t>(e)])) : 0.0;
      logits[static_cast<size_t>(t * E + e)] = static_cast<float>(log_share - std::log(-std::log(uniform(rng))));
    }
  }
  return logits;
}

int64_t ExpertsHit(const std::vector<float>& logits, int64_t T, int64_t E, int64_t top_k) {
  std::vector<bool> hit(static_cast<size_t>(E));
  std::vector<int64_t> order(static_cast<size_t>(E));
  for (int64_t t = 0; t < T; ++t) {
    std::iota(order.begin(), order.end(), 0);
    const float* row = logits.data() + t * E;
    std::partial_sort(order.begin(), order.begin() + top_k, order.end(), [row](int64_t a, int64_t b) { return row[a] > row[b]; });
    for (int64_t j = 0; j < top_k; ++j) hit[static_cast<size_t>(order[static_cast<size_t>(j)])] = true;
  }
  return std::count(hit.begin(), hit.end(), true);
}

template <class T>
Result<DeviceBuffer> ToDevice(Device device, const std::vector<T>& host, DType dtype) {
  const auto count = static_cast<int64_t>(host.size() * sizeof(T) * 8 / static_cast<size_t>(DTypeBits(dtype)));
  Result<DeviceBuffer> buffer = DeviceBuffer::Allocate(device, host.size() * sizeof(T));
  if (!buffer) return buffer.error();
  const Status status = CopyTensor(TensorView(buffer->data(), dtype, {count}, device), ConstTensorView(host.data(), dtype, {count}));
  if (!status.ok()) return status;
  return buffer;
}

}  // namespace

Status BenchMoeCuda(const KernelCase& kernel_case, const std::vector<int64_t>& Ms, const RunOptions& options, const CudaLimits& limits,
                    const RowSink& sink) {
  const int64_t H = kernel_case.K, I = kernel_case.N / 2, E = kernel_case.E, top_k = kernel_case.top_k;
  if (top_k < 1 || top_k > E || kernel_case.N % 2 != 0) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("a block of {} experts, top {}, {} rows of gate and up; give 1 <= top <= experts and an even number of rows", E,
                        top_k, kernel_case.N)};
  }
  const Result<QuantScheme> scheme = SchemeByName(kernel_case.scheme);
  if (!scheme) return scheme.error();
  const Device device = options.device;
  const Result<CudaMeter> meter = CudaMeter::Create(device);
  if (!meter) return meter.error();
  const Result<PackedWeight> gate_up = PackedWeight::Random(*scheme, E, 2 * I, H, 1);
  if (!gate_up) return gate_up.error();
  const Result<PackedWeight> down = PackedWeight::Random(*scheme, E, H, I, 2);
  if (!down) return down.error();
  MoeOptions moe{.activation = {Activation::Kind::kSwiglu}};
  moe.activation_dtype = options.activation;
  moe.mode = options.mode;
  moe.device = device;
  moe.kernel = options.kernel;
  const Result<Router> router = Router::Create({RouterRule::Score::kSoftmax, E, top_k, true}, device);
  if (!router) return router.error();
  for (const int64_t M : Ms) {
    const std::vector<float> host_logits = RouterLogits(M, E, options.zipf, 7);
    const double share = static_cast<double>(ExpertsHit(host_logits, M, E, top_k)) / static_cast<double>(E);
    // A call reads the experts that were chosen, so few tokens need more copies.
    const auto read = static_cast<size_t>(share * static_cast<double>(gate_up->bytes() + down->bytes()));
    const int64_t count = CudaCopiesOf(read);
    const auto held = static_cast<double>(gate_up->bytes() + down->bytes());
    const auto layers = std::min(count, static_cast<int64_t>(std::ceil(kMostHeldBytes / held)));
    std::vector<MoeLayer> copies;
    for (int64_t i = 0; i < layers; ++i) {
      Result<MoeLayer> layer = MoeLayer::Create(*gate_up, *down, moe);
      if (!layer) return layer.error();
      copies.push_back(std::move(layer).value());
    }
    // Each call of a round has its own routing, so that copies that are used twice are read at other experts.
    std::vector<DeviceBuffer> logits;
    for (int64_t i = 0; i < count; ++i) {
      Result<DeviceBuffer> buffer =
          ToDevice(device, i == 0 ? host_logits : RouterLogits(M, E, options.zipf, 7 + static_cast<uint64_t>(i)), DType::kF32);
      if (!buffer) return buffer.error();
      logits.push_back(std::move(buffer).value());
    }
    const Result<DeviceBuffer> x = ToDevice(device, RandomActivations(M * H, options.activation, 2), options.activation);
    if (!x) return x.error();
    const auto slots = static_cast<size_t>(M * top_k);
    const size_t scratch_bytes = std::max(copies.front().WorkspaceBytes(M, top_k), router->WorkspaceBytes(M)) + 256;
    const Result<DeviceBuffer> ids = DeviceBuffer::Allocate(device, slots * 4), weights = DeviceBuffer::Allocate(device, slots * 4),
                               y = DeviceBuffer::Allocate(device, static_cast<size_t>(M * H) * 4),
                               scratch = DeviceBuffer::Allocate(device, scratch_bytes);
    for (const Result<DeviceBuffer>* buffer : {&ids, &weights, &y, &scratch}) {
      if (!*buffer) return buffer->error();
    }
    Workspace workspace(scratch->span());
    ExecContext ctx{workspace, 1, meter->stream()};
    const Routing routing{TensorView(ids->data(), DType::kI32, {M, top_k}, device),
                          TensorView(weights->data(), DType::kF32, {M, top_k}, device)};
    CudaWorkload workload;
    workload.copies = count;
    workload.run = [&](int64_t call) -> Status {
      const ConstTensorView scores(logits[static_cast<size_t>(call)].data(), DType::kF32, {M, E}, device);
      if (Status status = router->Forward(scores, {}, routing, ctx); !status.ok()) return status;
      return copies[static_cast<size_t>(call) % copies.size()].Forward(ConstTensorView(x->data(), options.activation, {M, H}, device),
                                                                       routing, TensorView(y->data(), options.activation, {M, H}, device),
                                                                       ctx);
    };
    workload.bytes = share * static_cast<double>(copies.front().gate_up().weight_bytes + copies.front().down().weight_bytes);
    workload.operations = 2.0 * static_cast<double>(slots) * 3.0 * static_cast<double>(I) * static_cast<double>(H);
    Row row = KernelRow(kernel_case, options, M, copies.front().gate_up().kernel);
    if (Status status = meter->Measure(workload, limits, row); !status.ok()) return status;
    if (!sink(row)) return {ErrorCode::kCancelled, "the benchmark was interrupted"};
  }
  return {};
}

}  // namespace billfish::bench
