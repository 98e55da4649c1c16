#include "linear/linear_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "backend/bias.h"
#include "backend/panel_store.h"
#include "core/rounding.h"
#include "core/status_macros.h"

namespace billfish {
namespace {

constexpr int kLeastScratchThreads = 8;
constexpr size_t kLine = 64;

// WorkspaceBytes does not know the thread count of the call, so it makes room for every processor.
int ScratchThreads() {
  static const int threads = std::max({kLeastScratchThreads, DefaultThreads(), static_cast<int>(std::thread::hardware_concurrency())});
  return threads;
}

}  // namespace

std::unique_ptr<Linear::Impl> Linear::Impl::For(const Problem& problem, size_t weight_bytes) {
  auto impl = std::make_unique<Impl>();
  impl->activation = problem.activation;
  impl->device = problem.device;
  impl->E = problem.E;
  impl->N = problem.N;
  impl->K = problem.K;
  impl->weight_bytes = weight_bytes;
  impl->scheme = problem.scheme;
  return impl;
}

Result<std::unique_ptr<Linear::Impl>> Linear::Impl::Create(Op op, const PackedWeight& weight, const LinearOptions& options) {
  if (weight.E() == 0) return Status(ErrorCode::kInvalidArgument, "the weight is empty; make one with FromParts, Quantize or LoadWeight");
  Problem problem;
  problem.op = op;
  problem.device = options.device;
  problem.scheme = weight.scheme();
  problem.activation = options.activation;
  problem.mode = options.mode;
  problem.E = weight.E();
  problem.N = weight.N();
  problem.K = weight.K();
  problem.act_order = !weight.parts().perm.empty();
  BILLFISH_ASSIGN_OR_RETURN(std::vector<float> bias, backend::ReadBias(options.bias, problem));
  std::unique_ptr<Impl> impl = For(problem, weight.bytes());
  BILLFISH_ASSIGN_OR_RETURN(impl->kernel, backend::MakeKernel(problem, weight, std::move(bias), options.kernel));
  if (const cpu::CpuWeight* panels = impl->kernel->panels(); panels != nullptr && options.panels.store != nullptr) {
    backend::KeepPanels(options.panels, {problem.scheme, problem.act_order, weight.bytes()}, *panels, DefaultThreads());
  }
  return impl;
}

Result<std::unique_ptr<Linear::Impl>> Linear::Impl::Map(Op op, const LinearOptions& options) {
  std::optional<backend::StoredPanels> stored;
  if (options.device.kind == Device::Kind::kCpu) stored = backend::FindPanels(options.panels, DefaultThreads());
  if (!stored)
    return Status(ErrorCode::kNotFound, "no packed form of " + options.panels.name + " is kept; create the layer from its weight");
  const size_t bytes = stored->weight.bytes();
  Problem problem;
  problem.op = op;
  problem.scheme = stored->facts.scheme;
  problem.activation = options.activation;
  problem.mode = options.mode;
  problem.E = stored->weight.E();
  problem.N = stored->weight.N();
  problem.K = stored->weight.K();
  problem.act_order = stored->facts.act_order;
  BILLFISH_ASSIGN_OR_RETURN(std::vector<float> bias, backend::ReadBias(options.bias, problem));
  std::unique_ptr<Impl> impl = For(problem, stored->facts.weight_bytes);
  BILLFISH_ASSIGN_OR_RETURN(impl->kernel,
                            backend::MakeKernelFromPanels(problem, std::move(stored->weight), std::move(bias), options.kernel));
  backend::CountMapped(options.panels, bytes);
  return impl;
}

size_t Linear::Impl::WorkspaceBytes(int64_t rows) const {
  if (rows <= 0) return 0;
  if (device.kind == Device::Kind::kCuda) return kernel->WorkspaceBytes(rows, 1);
  return RoundUp(static_cast<size_t>(E + 1) * sizeof(int32_t), kLine) + kernel->WorkspaceBytes(rows, ScratchThreads());
}

Status Linear::Impl::CheckOperands(std::string_view layer, const ConstTensorView& x, const TensorView& y) const {
  if (x.rank() != 2 || x.dim(1) != K) {
    return {ErrorCode::kShapeMismatch, fmt::format("{}: x is {}; its weight has K = {}, give x as [rows, {}]", layer, x.ToString(), K, K)};
  }
  if (y.rank() != 2 || y.dim(1) != N) {
    return {ErrorCode::kShapeMismatch, fmt::format("{}: y is {}; its weight has N = {}, give y as [rows, {}]", layer, y.ToString(), N, N)};
  }
  if (x.dtype() != activation) {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: x is {}; it was created for {} activations, convert x or create it anew", layer,
                                                     x.ToString(), DTypeName(activation))};
  }
  const bool gpu = device.kind == Device::Kind::kCuda;
  const DType half = gpu ? activation : DType::kBF16;
  if (y.dtype() != DType::kF32 && y.dtype() != half) {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: y is {}; give F32 or {}", layer, y.ToString(), DTypeName(half))};
  }
  if (x.device() != device || y.device() != device) {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: x or y lies on another device; this layer runs on {}, copy them there", layer,
                                                     gpu ? fmt::format("cuda:{}", device.index) : "the cpu")};
  }
  if ((K > 1 && x.stride(1) != 1) || (x.dim(0) > 1 && x.stride(0) < 0)) {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: x has strides [{}, {}]; numbers of a row must lie side by side and rows forwards",
                                                     layer, x.stride(0), x.stride(1))};
  }
  if ((N > 1 && y.stride(1) != 1) || (y.dim(0) > 1 && y.stride(0) < N)) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}: y has strides [{}, {}]; numbers of a row must lie side by side and rows at least N = {} apart", layer,
                        y.stride(0), y.stride(1), N)};
  }
  if ((x.data() == nullptr && x.dim(0) > 0) || (y.data() == nullptr && y.dim(0) > 0)) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}: {} has no memory; give a view of real numbers", layer, x.data() == nullptr ? "x" : "y")};
  }
  return OkStatus();
}

Status Linear::Impl::WorkspaceTooSmall(std::string_view layer, int64_t rows, size_t bytes) const {
  return {ErrorCode::kOutOfMemory,
          fmt::format("{}: {} rows need a workspace of {} bytes and it has {}; Reserve(WorkspaceBytes(rows)) first", layer, rows,
                      WorkspaceBytes(rows), bytes)};
}

Status Linear::Impl::Run(std::string_view layer, const ConstTensorView& x, std::span<const int64_t> offsets,
                         std::span<const int32_t> gather, const TensorView& y, ExecContext& ctx) const {
  const int64_t rows = y.dim(0);
  if (ctx.threads < 1) {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: {} threads were asked for; give at least 1", layer, ctx.threads)};
  }
  std::span<std::byte> memory = ctx.workspace.memory();
  if (device.kind == Device::Kind::kCuda) {
    if (kernel->WorkspaceBytes(rows, 1) > memory.size()) return WorkspaceTooSmall(layer, rows, memory.size());
    // The offsets in 32 bits; they stay on the host, from where the kernel sends what it needs.
    const std::vector<int32_t> narrow(offsets.begin(), offsets.end());
    backend::Call call;
    call.x = x;
    call.rows = rows;
    call.offsets = narrow;
    call.source = gather.empty() ? nullptr : gather.data();
    call.y = y;
    call.workspace = memory;
    call.stream = ctx.stream;
    return kernel->Run(call);
  }
  const size_t head = RoundUp(static_cast<size_t>(E + 1) * sizeof(int32_t), kLine);
  int threads = ctx.threads;
  while (threads > 1 && head + kernel->WorkspaceBytes(rows, threads) > memory.size()) --threads;
  if (head + kernel->WorkspaceBytes(rows, threads) > memory.size()) {
    return WorkspaceTooSmall(layer, rows, memory.size());
  }
  backend::Call call;
  call.x = x;
  call.rows = rows;
  call.source = gather.empty() ? nullptr : gather.data();
  call.y = y;
  call.workspace = memory.subspan(head);
  call.threads = threads;
  if (!offsets.empty()) {
    auto* narrow = reinterpret_cast<int32_t*>(memory.data());
    for (size_t e = 0; e < offsets.size(); ++e) narrow[e] = static_cast<int32_t>(offsets[e]);
    call.offsets = {narrow, offsets.size()};
  }
  return kernel->Run(call);
}

}  // namespace billfish
