// Life of one Forward
//
//   sort      slots by expert (slots.cc)
//   chunks    of at most kChunkRows sorted rows, so that what lies between the matrices stays in cache:
//               gate_up [rows, 2I] fp32 = W_gate_up x[token]      the kernel gathers the tokens itself
//               h       [rows, I]       = act(gate, up)           in the dtype of x
//               out     [rows, H] fp32  = W_down h
//   combine   y[t] = sum over slots of weight * out[position]
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "billfish/moe.h"
#include "core/parallel.h"
#include "core/rounding.h"
#include "core/status_macros.h"
#include "cpu/isa.h"
#include "moe/gpu_access.h"
#include "moe/row_ops.h"
#include "moe/slots.h"

namespace billfish {
namespace {

constexpr int64_t kChunkRows = 1024;
constexpr size_t kLine = 64;
// Elements below which a parallel region costs more than it saves.
constexpr int64_t kInlineElements = 1 << 13;

// Cuts a workspace into arrays, each on its own cache lines. Without memory it only adds up.
class Carver {
 public:
  explicit Carver(std::span<std::byte> memory) : memory_(memory) {}

  template <class T>
  std::span<T> Take(int64_t count) {
    const size_t begin = used_;
    used_ += RoundUp(static_cast<size_t>(count) * sizeof(T), kLine);
    if (used_ > memory_.size()) return {};
    return {reinterpret_cast<T*>(memory_.data() + begin), static_cast<size_t>(count)};
  }

  std::span<std::byte> Rest() const { return used_ < memory_.size() ? memory_.subspan(used_) : std::span<std::byte>(); }
  size_t used() const { return used_; }

 private:
  std::span<std::byte> memory_;
  size_t used_ = 0;
};

MatrixInfo InfoOf(const GroupedLinear& linear) {
  return {linear.kernel(), linear.scheme(), linear.E(), linear.N(), linear.K(), linear.bytes(), linear.weight_bytes()};
}

struct Buffers {
  moe::Slots slots;
  std::span<int64_t> chunk_offsets;  ///< [E+1]
  std::span<float> gate_up;          ///< [chunk, gate_up rows]
  std::span<std::byte> h;            ///< [chunk, I]
  std::span<float> out;              ///< [rows, H]
};

// Row order that puts the even rows first: interleaved gate and up become two halves.
std::vector<int64_t> EvenRowsFirst(int64_t rows) {
  std::vector<int64_t> order(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows / 2; ++i) {
    order[static_cast<size_t>(i)] = 2 * i;
    order[static_cast<size_t>(rows / 2 + i)] = 2 * i + 1;
  }
  return order;
}

// The bias with its columns in `order`, same dtype.
std::vector<std::byte> SelectColumns(const ConstTensorView& bias, std::span<const int64_t> order) {
  const auto size = static_cast<size_t>(DTypeBits(bias.dtype()) / 8);
  const auto N = static_cast<int64_t>(order.size());
  std::vector<std::byte> selected(static_cast<size_t>(bias.num_elements()) * size);
  for (int64_t e = 0; e < bias.dim(0); ++e) {
    for (int64_t i = 0; i < N; ++i) {
      std::memcpy(selected.data() + static_cast<size_t>(e * N + i) * size,
                  bias.as<std::byte>() + static_cast<size_t>(e * N + order[static_cast<size_t>(i)]) * size, size);
    }
  }
  return selected;
}

// Matrix is PackedWeight or GroupedLinear.
template <class Matrix>
Status CheckShapes(const Matrix& gate_up, const Matrix& down, const MoeOptions& options) {
  const int64_t rows_per_hidden = options.activation.gated() ? 2 : 1;
  if (gate_up.E() == down.E() && gate_up.K() == down.N() && gate_up.N() == rows_per_hidden * down.K()) return OkStatus();
  return {ErrorCode::kShapeMismatch,
          fmt::format("MoeLayer: gate_up is [{}, {}, {}] and down is [{}, {}, {}]; {} activation takes [E, {}, H] and [E, H, I]",
                      gate_up.E(), gate_up.N(), gate_up.K(), down.E(), down.N(), down.K(),
                      options.activation.gated() ? "a gated" : "an ungated", options.activation.gated() ? "2I" : "I")};
}

Status CheckOptions(const MoeOptions& options) {
  BILLFISH_RETURN_IF_ERROR(options.activation.Validate());
  if (options.order == GateUpOrder::kInterleaved && !options.activation.gated()) {
    return {ErrorCode::kInvalidArgument, "MoeLayer: an activation without gate has nothing to interleave; use GateUpOrder::kConcatenated"};
  }
  return OkStatus();
}

// What the two matrices are created or mapped with. Interleaved gate and up are kept as two halves, so their bias is reordered.
class MatrixOptions {
 public:
  explicit MatrixOptions(const MoeOptions& options) {
    gate_up_.activation = options.activation_dtype;
    gate_up_.mode = options.mode;
    gate_up_.device = options.device;
    gate_up_.kernel = options.kernel;
    gate_up_.panels.store = options.panels.store;
    down_ = gate_up_;
    const bool interleaved = options.order == GateUpOrder::kInterleaved;
    gate_up_.panels.name = options.panels.name + (interleaved ? " gate|up, interleaved" : " gate|up");
    down_.panels.name = options.panels.name + " down";
    gate_up_.bias = options.gate_up_bias;
    down_.bias = options.down_bias;
    const ConstTensorView& given = options.gate_up_bias;
    if (interleaved && given.data() != nullptr && given.rank() == 2 && given.is_contiguous()) {
      bias_ = SelectColumns(given, EvenRowsFirst(given.dim(1)));
      gate_up_.bias = ConstTensorView(bias_.data(), given.dtype(), given.shape());
    }
  }

  const LinearOptions& gate_up() const { return gate_up_; }
  const LinearOptions& down() const { return down_; }

 private:
  std::vector<std::byte> bias_;
  LinearOptions gate_up_, down_;
};

}  // namespace

struct MoeLayer::Impl {
  std::unique_ptr<backend::CudaMoe> gpu;  ///< holds everything on a GPU; then there is no GroupedLinear
  Device device;
  GroupedLinear gate_up, down;
  Activation activation;
  DType dtype = DType::kBF16;
  int64_t E = 0, H = 0, I = 0;
  int64_t gate_up_rows = 0;  ///< 2I, or I without gate
  const moe::RowOps* ops = nullptr;

  // Everything but the scratch of the matrices.
  Buffers Carve(Carver& carver, int64_t slots) const {
    const int64_t chunk = std::min(slots, kChunkRows);
    Buffers buffers;
    buffers.slots.offsets = carver.Take<int64_t>(E + 1);
    buffers.slots.tokens = carver.Take<int32_t>(slots);
    buffers.slots.positions = carver.Take<int32_t>(slots);
    buffers.chunk_offsets = carver.Take<int64_t>(E + 1);
    buffers.gate_up = carver.Take<float>(chunk * gate_up_rows);
    buffers.h = carver.Take<std::byte>(chunk * I * (DTypeBits(dtype) / 8));
    buffers.out = carver.Take<float>(slots * H);
    return buffers;
  }

  Status CheckOperands(const ConstTensorView& x, const Routing& routing, const TensorView& y) const;
  Status RunOnGpu(const ConstTensorView& x, const Routing& routing, const TensorView& y, ExecContext& ctx) const;
  Status RunChunk(const ConstTensorView& x, const Buffers& buffers, int64_t begin, int64_t end, ExecContext& ctx) const;
  void Activate(const Buffers& buffers, int64_t rows, int threads) const;
  void Combine(const Routing& routing, const Buffers& buffers, const TensorView& y, int threads) const;
};

const backend::CudaMoe* moe::GpuAccess::Of(const MoeLayer& layer) { return layer.impl_ == nullptr ? nullptr : layer.impl_->gpu.get(); }

MoeLayer::MoeLayer() = default;
MoeLayer::~MoeLayer() = default;
MoeLayer::MoeLayer(MoeLayer&&) noexcept = default;
MoeLayer& MoeLayer::operator=(MoeLayer&&) noexcept = default;

Result<MoeLayer> MoeLayer::Create(const PackedWeight& gate_up, const PackedWeight& down, const MoeOptions& options) {
  BILLFISH_RETURN_IF_ERROR(CheckOptions(options));
  BILLFISH_RETURN_IF_ERROR(CheckShapes(gate_up, down, options));
  if (options.device.kind == Device::Kind::kCuda) {
    MoeLayer layer;
    layer.impl_ = std::make_unique<Impl>();
    Impl& impl = *layer.impl_;
    BILLFISH_ASSIGN_OR_RETURN(impl.gpu, backend::CudaMoe::Create(gate_up, down, options));
    impl.device = options.device;
    impl.dtype = options.activation_dtype;
    impl.E = gate_up.E();
    impl.H = gate_up.K();
    impl.I = down.K();
    return layer;
  }
  const MatrixOptions matrices(options);
  PackedWeight separated;
  if (options.order == GateUpOrder::kInterleaved) {
    BILLFISH_ASSIGN_OR_RETURN(separated, gate_up.SelectRows(EvenRowsFirst(gate_up.N())));
  }
  return FromMatrices(GroupedLinear::Create(separated.E() > 0 ? separated : gate_up, matrices.gate_up()),
                      GroupedLinear::Create(down, matrices.down()), options);
}

Result<MoeLayer> MoeLayer::Map(const MoeOptions& options) {
  BILLFISH_RETURN_IF_ERROR(CheckOptions(options));
  const MatrixOptions matrices(options);
  return FromMatrices(GroupedLinear::Map(matrices.gate_up()), GroupedLinear::Map(matrices.down()), options);
}

Result<MoeLayer> MoeLayer::FromMatrices(Result<GroupedLinear> gate_up, Result<GroupedLinear> down, const MoeOptions& options) {
  if (!gate_up) return gate_up.error().WithContext("MoeLayer gate_up");
  if (!down) return down.error().WithContext("MoeLayer down");
  BILLFISH_RETURN_IF_ERROR(CheckShapes(*gate_up, *down, options));
  MoeLayer layer;
  layer.impl_ = std::make_unique<Impl>();
  Impl& impl = *layer.impl_;
  impl.E = gate_up->E();
  impl.H = gate_up->K();
  impl.I = down->K();
  impl.gate_up_rows = gate_up->N();
  impl.gate_up = std::move(*gate_up);
  impl.down = std::move(*down);
  impl.activation = options.activation;
  impl.dtype = options.activation_dtype;
  impl.ops = &moe::RowOpsFor(cpu::DetectCpu().tier);
  return layer;
}

Status MoeLayer::Impl::CheckOperands(const ConstTensorView& x, const Routing& routing, const TensorView& y) const {
  const int64_t T = x.rank() == 2 ? x.dim(0) : -1;
  if (T < 0 || x.dim(1) != H || y.rank() != 2 || y.dim(0) != T || y.dim(1) != H) {
    return {ErrorCode::kShapeMismatch, fmt::format("MoeLayer: x is {} and y is {}; give both as [T, {}]", x.ToString(), y.ToString(), H)};
  }
  const DType half = gpu ? dtype : DType::kBF16;
  if (x.dtype() != dtype || (y.dtype() != DType::kF32 && y.dtype() != half)) {
    return {ErrorCode::kInvalidArgument, fmt::format("MoeLayer: x is {} and y is {}; it was created for {} activations, y may be F32 or {}",
                                                     x.ToString(), y.ToString(), DTypeName(dtype), DTypeName(half))};
  }
  if (x.device() != device || y.device() != device || routing.ids.device() != device || routing.weights.device() != device) {
    return {ErrorCode::kInvalidArgument, fmt::format("MoeLayer: an operand lies on another device; this layer runs on {}, copy it there",
                                                     gpu ? fmt::format("cuda:{}", device.index) : "the cpu")};
  }
  if (H > 1 && y.stride(1) != 1) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("MoeLayer: y has column stride {}; numbers of a row must lie side by side", y.stride(1))};
  }
  const TensorView &ids = routing.ids, &weights = routing.weights;
  if (ids.rank() != 2 || ids.dtype() != DType::kI32 || ids.dim(0) != T || !ids.is_contiguous() || weights.rank() != 2 ||
      weights.dtype() != DType::kF32 || weights.dim(0) != T || weights.dim(1) != ids.dim(1) || !weights.is_contiguous()) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("MoeLayer: routing of {} tokens is ids {} and weights {}; give contiguous i32[{}, top_k] and "
                        "f32[{}, top_k]",
                        T, ids.ToString(), weights.ToString(), T, T)};
  }
  const bool no_memory = (T > 0 && (x.data() == nullptr || y.data() == nullptr)) ||
                         (ids.num_elements() > 0 && (ids.data() == nullptr || weights.data() == nullptr));
  if (no_memory) return {ErrorCode::kInvalidArgument, "MoeLayer: x, y, ids or weights has no memory; give views of real numbers"};
  if (ids.num_elements() > INT32_MAX) {
    return {ErrorCode::kInvalidArgument, fmt::format("MoeLayer: {} slots; a call takes at most 2^31 - 1, use several", ids.num_elements())};
  }
  return OkStatus();
}

Status MoeLayer::Forward(ConstTensorView x, const Routing& routing, TensorView y, ExecContext& ctx) const {
  if (impl_ == nullptr) return {ErrorCode::kInvalidArgument, "MoeLayer: it holds no weights; make it with MoeLayer::Create"};
  const Impl& impl = *impl_;
  BILLFISH_RETURN_IF_ERROR(impl.CheckOperands(x, routing, y));
  const int64_t T = x.dim(0), top_k = routing.ids.dim(1), slots = T * top_k;
  if (T == 0) return OkStatus();
  if (impl.gpu) return impl.RunOnGpu(x, routing, y, ctx);
  if (ctx.threads < 1) {
    return {ErrorCode::kInvalidArgument, fmt::format("MoeLayer: {} threads were asked for; give at least 1", ctx.threads)};
  }
  Carver carver(ctx.workspace.memory());
  Buffers buffers = impl.Carve(carver, slots);
  if (carver.used() > ctx.workspace.memory().size()) {
    return {
        ErrorCode::kOutOfMemory,
        fmt::format("MoeLayer: {} tokens of {} slots need a workspace of {} bytes and it has {}; Reserve(WorkspaceBytes(T, top_k)) first",
                    T, top_k, WorkspaceBytes(T, top_k), ctx.workspace.memory().size())};
  }
  BILLFISH_RETURN_IF_ERROR(moe::SortSlots({routing.ids.as<int32_t>(), static_cast<size_t>(slots)}, top_k, buffers.slots));
  Workspace rest(carver.Rest());
  ExecContext inner{rest, ctx.threads};
  const int64_t rows = buffers.slots.offsets.back();
  for (int64_t begin = 0; begin < rows; begin += kChunkRows) {
    BILLFISH_RETURN_IF_ERROR(impl.RunChunk(x, buffers, begin, std::min(begin + kChunkRows, rows), inner));
  }
  impl.Combine(routing, buffers, y, ctx.threads);
  return OkStatus();
}

Status MoeLayer::Impl::RunOnGpu(const ConstTensorView& x, const Routing& routing, const TensorView& y, ExecContext& ctx) const {
  cuda::MoeCall call;
  call.x = x.data();
  call.ids = routing.ids.as<int32_t>();
  call.weights = routing.weights.as<float>();
  call.y = y.mutable_data();
  call.T = x.dim(0);
  call.top_k = routing.ids.dim(1);
  call.x_stride = x.stride(0);
  call.y_stride = y.stride(0);
  BILLFISH_ASSIGN_OR_RETURN(call.y_type, cuda::OutTypeOf(y.dtype(), "MoeLayer"));
  const std::span<std::byte> memory = ctx.workspace.memory();
  if (const size_t needed = gpu->WorkspaceBytes(call.T, call.top_k); needed > memory.size()) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("MoeLayer: {} tokens of {} slots need a workspace of {} bytes and it has {}; lend it WorkspaceBytes(T, top_k)",
                        call.T, call.top_k, needed, memory.size())};
  }
  return gpu->Run(call, memory, ctx.stream);
}

Status MoeLayer::Impl::RunChunk(const ConstTensorView& x, const Buffers& buffers, int64_t begin, int64_t end, ExecContext& ctx) const {
  const int64_t rows = end - begin;
  for (size_t e = 0; e < buffers.chunk_offsets.size(); ++e) {
    buffers.chunk_offsets[e] = std::clamp(buffers.slots.offsets[e], begin, end) - begin;
  }
  const TensorView gate_up_out(buffers.gate_up.data(), DType::kF32, {rows, gate_up_rows});
  BILLFISH_RETURN_IF_ERROR(gate_up.Forward(
      x, buffers.chunk_offsets, buffers.slots.tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(rows)), gate_up_out, ctx));
  Activate(buffers, rows, ctx.threads);
  const ConstTensorView h(buffers.h.data(), dtype, {rows, I});
  const TensorView out(buffers.out.data() + begin * H, DType::kF32, {rows, H});
  return down.Forward(h, buffers.chunk_offsets, {}, out, ctx);
}

void MoeLayer::Impl::Activate(const Buffers& buffers, int64_t rows, int threads) const {
  const int64_t row_bytes = I * (DTypeBits(dtype) / 8);
  ParallelFor(rows * I <= kInlineElements ? 1 : threads, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* gate = buffers.gate_up.data() + r * gate_up_rows;
      ops->activate(activation, {gate, gate + (gate_up_rows - I), I, buffers.h.data() + r * row_bytes, dtype == DType::kBF16});
    }
  });
}

void MoeLayer::Impl::Combine(const Routing& routing, const Buffers& buffers, const TensorView& y, int threads) const {
  const int64_t T = y.dim(0), top_k = routing.ids.dim(1);
  const bool bf16 = y.dtype() == DType::kBF16;
  ParallelFor(T * top_k * H <= kInlineElements ? 1 : threads, T, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      std::byte* row = y.as<std::byte>() + t * y.stride(0) * (bf16 ? 2 : 4);
      ops->combine(
          {buffers.out.data(), H, buffers.slots.positions.data() + t * top_k, routing.weights.as<float>() + t * top_k, top_k, row, bf16});
    }
  });
}

size_t MoeLayer::WorkspaceBytes(int64_t T, int64_t top_k) const {
  if (impl_ == nullptr || T <= 0 || top_k <= 0) return 0;
  if (impl_->gpu) return impl_->gpu->WorkspaceBytes(T, top_k);
  const int64_t slots = T * top_k, chunk = std::min(slots, kChunkRows);
  Carver carver({});
  impl_->Carve(carver, slots);
  return carver.used() + std::max(impl_->gate_up.WorkspaceBytes(chunk, T), impl_->down.WorkspaceBytes(chunk, chunk));
}

int64_t MoeLayer::E() const { return impl_ == nullptr ? 0 : impl_->E; }
int64_t MoeLayer::H() const { return impl_ == nullptr ? 0 : impl_->H; }
int64_t MoeLayer::I() const { return impl_ == nullptr ? 0 : impl_->I; }

MatrixInfo MoeLayer::gate_up() const {
  if (impl_ == nullptr) return {};
  return impl_->gpu ? impl_->gpu->gate_up() : InfoOf(impl_->gate_up);
}

MatrixInfo MoeLayer::down() const {
  if (impl_ == nullptr) return {};
  return impl_->gpu ? impl_->gpu->down() : InfoOf(impl_->down);
}

}  // namespace billfish
