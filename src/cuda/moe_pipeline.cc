#include "cuda/moe_pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/moe_args.h"

namespace billfish::cuda {
namespace {

constexpr size_t kAlign = 256;
constexpr int64_t kMostF32Bytes = int64_t{1} << 30;
// Mean rows an expert from which a tile of tokens is worth more than the stream of weights.
constexpr int64_t kDecodeMeanRows = 16;
// Tokens that kernels of their own may take without a sort before and a combine after them, and the bytes of their experts up to which
// starting soon is worth more than the stream's speed. One token's are always better off there.
constexpr int64_t kFewTokens = 2, kFewBytes = int64_t{64} << 20;
constexpr int kCombineThreads = 128;

KernelSpec CombineSpec(int in, int out) {
  KernelSpec spec;
  spec.file = "moe_combine.cu";
  spec.function = "moe_combine";
  spec.defines = {{"BF_IN", std::to_string(in)}, {"BF_OUT", std::to_string(out)}};
  return spec;
}

Status CheckShapes(const TileView& gate_up, const TileView& down, const Activation& activation) {
  const int64_t I = activation.gated() ? gate_up.form.N / 2 : gate_up.form.N;
  if (gate_up.form.E == down.form.E && gate_up.form.K == down.form.N && down.form.K == I) return OkStatus();
  return {ErrorCode::kShapeMismatch,
          fmt::format("gate|up is [{}, {}, {}] and down is [{}, {}, {}]; with this activation give down [{}, {}, {}]", gate_up.form.E,
                      gate_up.form.N, gate_up.form.K, down.form.E, down.form.N, down.form.K, gate_up.form.E, gate_up.form.K, I)};
}

}  // namespace

// The workspace of a call.
struct MoePipeline::Parts {
  int32_t* arrivals;
  int32_t* offsets;
  int32_t* source;
  int32_t* position;
  int32_t* counts;
  TileWork* work;
  int32_t* work_count;
  float* sums;  ///< of TokenMoe
  void* h;      ///< [slots][I], rows at multiples of 8 elements
  void* out;    ///< [slots][H]
  size_t bytes;
};

Result<MoePipeline> MoePipeline::Create(const GpuDevice& device, const TileView& gate_up, const TileView& down,
                                        const MoePipelineOptions& options) {
  BILLFISH_RETURN_IF_ERROR(CheckShapes(gate_up, down, options.activation));
  BILLFISH_RETURN_IF_ERROR(device.MakeCurrent());
  MoePipeline moe;
  moe.device_ = &device;
  moe.E_ = gate_up.form.E;
  moe.H_ = down.form.N;
  moe.I_ = down.form.K;
  moe.first_expert_ = options.first_expert;
  moe.expert_bytes_ = static_cast<int64_t>(gate_up.form.expert_bytes() + down.form.expert_bytes());
  moe.dtype_ = options.activation_dtype;
  BILLFISH_ASSIGN_OR_RETURN(moe.sort_, SlotSort::Create(moe.E_, device));
  for (int in = 0; in < 2; ++in) {
    for (int out = 0; out < 3; ++out) {
      BILLFISH_ASSIGN_OR_RETURN(moe.combine_[in][out], LoadKernel(CombineSpec(in, out), device));
    }
  }
  const DType dtype = options.activation_dtype;
  BILLFISH_ASSIGN_OR_RETURN(moe.held_, HeldMoe::Create(device, gate_up, down, dtype, options.activation));
  BILLFISH_ASSIGN_OR_RETURN(moe.token_, TokenMoe::Create(device, gate_up, down, dtype, options.activation));
  BILLFISH_ASSIGN_OR_RETURN(GroupedDecode decode_gate_up, GroupedDecode::Create(device, gate_up, dtype, &options.activation));
  BILLFISH_ASSIGN_OR_RETURN(GroupedDecode decode_down, GroupedDecode::Create(device, down, dtype, nullptr));
  BILLFISH_ASSIGN_OR_RETURN(GroupedTile tile_gate_up, GroupedTile::Create(device, gate_up, dtype, &options.activation));
  BILLFISH_ASSIGN_OR_RETURN(GroupedTile tile_down, GroupedTile::Create(device, down, dtype, nullptr));
  moe.decode_gate_up_ = std::make_shared<const GroupedDecode>(std::move(decode_gate_up));
  moe.decode_down_ = std::make_shared<const GroupedDecode>(std::move(decode_down));
  moe.tile_gate_up_ = std::make_shared<const GroupedTile>(std::move(tile_gate_up));
  moe.tile_down_ = std::make_shared<const GroupedTile>(std::move(tile_down));
  return moe;
}

bool MoePipeline::Decodes(int64_t slots) const { return slots <= kDecodeMeanRows * E_; }

bool MoePipeline::Direct(int64_t T, int64_t top_k) const {
  const int64_t slots = T * top_k;
  return T <= kFewTokens && slots <= kDirectSlots && Decodes(slots) && (T == 1 || slots * expert_bytes_ <= kFewBytes);
}

int64_t MoePipeline::Arrivals() const { return TilePanels(H_) * 4; }

int64_t MoePipeline::HStride() const { return RoundUp(I_, 8); }

bool MoePipeline::OneLaunch(int64_t T, int64_t top_k) const { return T == 1 && token_ && token_->Takes(top_k); }

DType MoePipeline::RowsType(int64_t slots) const { return Decodes(slots) || slots * H_ * 4 <= kMostF32Bytes ? DType::kF32 : DType::kBF16; }

MoePipeline::Parts MoePipeline::Carve(int64_t T, int64_t top_k, std::byte* base) const {
  const int64_t slots = T * top_k;
  size_t used = 0;
  const auto take = [&](int64_t bytes) {
    std::byte* at = base + used;
    used += RoundUp(static_cast<size_t>(bytes), kAlign);
    return at;
  };
  Parts parts{};
  if (Direct(T, top_k)) {
    parts.arrivals = reinterpret_cast<int32_t*>(take(Arrivals() * 4));
  } else {
    parts.position = reinterpret_cast<int32_t*>(take(slots * 4));
    parts.offsets = reinterpret_cast<int32_t*>(take((E_ + 1) * 4));
    parts.source = reinterpret_cast<int32_t*>(take(slots * 4));
    parts.counts = reinterpret_cast<int32_t*>(take(SlotSort::ScratchCounts(slots, E_) * 4));
    parts.work_count = reinterpret_cast<int32_t*>(take(4));
    parts.work = reinterpret_cast<TileWork*>(take(MostTiles(slots, E_, 1) * static_cast<int64_t>(sizeof(TileWork))));
  }
  if (OneLaunch(T, top_k)) parts.sums = reinterpret_cast<float*>(take(TokenMoe::SumsBytes(token_->Shares())));
  parts.h = take(slots * HStride() * 2);
  parts.out = take(slots * H_ * DTypeBits(RowsType(slots)) / 8);
  parts.bytes = used;
  return parts;
}

size_t MoePipeline::WorkspaceBytes(int64_t T, int64_t top_k) const { return Carve(T, top_k, nullptr).bytes; }

Status MoePipeline::Run(const MoeCall& call, std::span<std::byte> workspace, CUstream stream) const {
  if (call.T == 0) return OkStatus();
  const int64_t slots = call.T * call.top_k;
  if (slots > INT32_MAX) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{} tokens with {} experts each are too many slots; give fewer than 2^31 a call", call.T, call.top_k)};
  }
  const Parts parts = Carve(call.T, call.top_k, workspace.data());
  if (workspace.size() < parts.bytes || reinterpret_cast<uintptr_t>(workspace.data()) % kAlign != 0) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("the expert block needs {} bytes of device memory, aligned to {}, for {} slots and got {} at {}; reserve "
                        "WorkspaceBytes(T, top_k)",
                        parts.bytes, kAlign, slots, workspace.size(), static_cast<const void*>(workspace.data()))};
  }
  BILLFISH_RETURN_IF_ERROR(device_->MakeCurrent());
  if (held_ && call.T == 1) {
    const HeldMoeCall held{call.x, call.ids, call.weights, call.addend, call.y, call.top_k, first_expert_, call.y_type};
    HeldExchange* exchange = held_->Takes(held) ? HeldExchangeOf(*device_, workspace.data()) : nullptr;
    if (exchange != nullptr) return held_->Run(held, exchange, stream);
  }
  if (OneLaunch(call.T, call.top_k)) {
    TokenProgress* const progress = TokenProgressOf(*device_, workspace.data());
    if (progress != nullptr) return OneToken(call, parts, progress, stream);
  }
  if (Direct(call.T, call.top_k)) return FewSlots(call, parts, stream);
  BILLFISH_RETURN_IF_ERROR(Experts(call, parts, stream));
  return Combine(call, parts, stream);
}

Status MoePipeline::OneToken(const MoeCall& call, const Parts& parts, TokenProgress* progress, CUstream stream) const {
  TokenMoeCall token;
  token.x = call.x;
  token.ids = call.ids;
  token.weights = call.weights;
  token.addend = call.addend;
  token.y = call.y;
  token.h = parts.h;
  token.sums = parts.sums;
  token.h_stride = HStride();
  token.top_k = call.top_k;
  token.first_expert = first_expert_;
  token.shares = token_->Shares();
  token.y_type = call.y_type;
  return token_->Run(token, progress, stream);
}

bool MoePipeline::Takes(const HeldNormedCall& call, std::span<std::byte> workspace) const {
  return held_ && held_->Takes(call) && HeldExchangeOf(*device_, workspace.data()) != nullptr;
}

Status MoePipeline::Run(const HeldNormedCall& call, std::span<std::byte> workspace, CUstream stream) const {
  BILLFISH_RETURN_IF_ERROR(device_->MakeCurrent());
  HeldNormedCall own = call;
  own.first_expert = first_expert_;
  return held_->Run(own, HeldExchangeOf(*device_, workspace.data()), stream);
}

// Two launches: both kernels sort for themselves and down combines.
Status MoePipeline::FewSlots(const MoeCall& call, const Parts& parts, CUstream stream) const {
  const int64_t h_stride = HStride();
  DecodeWork work;
  work.slots = call.T * call.top_k;
  work.top_k = call.top_k;
  work.first_expert = first_expert_;
  // Tokens have different experts, but for odd callers: then an expert has several tiles.
  work.tile_rows = static_cast<int>(call.T);
  work.ids = call.ids;
  work.gather = true;
  BILLFISH_RETURN_IF_ERROR(decode_gate_up_->RunGateUp(work, call.x, call.x_stride, parts.h, h_stride, parts.arrivals, Arrivals(), stream));
  work.gather = false;
  work.x_padded = true;
  work.overlapped = true;
  const DecodeCombine combine{parts.arrivals, call.weights, call.addend, call.y, call.y_stride, call.y_type};
  return decode_down_->RunDown(work, parts.h, h_stride, parts.out, H_, combine, stream);
}

Status MoePipeline::Sort(const MoeCall& call, const Parts& parts, int tile_rows, int cost_rows, CUstream stream) const {
  SortArgs args;
  args.ids = call.ids;
  args.offsets = parts.offsets;
  args.source = parts.source;
  args.position = parts.position;
  args.counts = parts.counts;
  args.work = parts.work;
  args.work_count = parts.work_count;
  args.slots = static_cast<int32_t>(call.T * call.top_k);
  args.top_k = static_cast<int32_t>(call.top_k);
  args.first_expert = static_cast<int32_t>(first_expert_);
  args.E = static_cast<int32_t>(E_);
  args.tile_rows = tile_rows;
  args.cost_rows = cost_rows;
  return sort_.Run(args, stream);
}

Status MoePipeline::Experts(const MoeCall& call, const Parts& parts, CUstream stream) const {
  const int64_t slots = call.T * call.top_k, h_stride = HStride();
  if (!Decodes(slots)) {
    GroupedTileCall tile;
    tile.tile_rows = tile_gate_up_->TileRows(slots);
    BILLFISH_RETURN_IF_ERROR(Sort(call, parts, tile.tile_rows, tile_gate_up_->CostRows(tile.tile_rows), stream));
    tile.x = call.x;
    tile.x_stride = call.x_stride;
    tile.y = {parts.h, h_stride, dtype_};
    tile.work = parts.work;
    tile.work_count = parts.work_count;
    tile.source = parts.source;
    BILLFISH_RETURN_IF_ERROR(tile_gate_up_->Run(tile, stream));
    tile.x = parts.h;
    tile.x_stride = h_stride;
    tile.y = {parts.out, H_, RowsType(slots)};
    tile.source = nullptr;
    return tile_down_->Run(tile, stream);
  }
  DecodeWork work;
  work.slots = slots;
  work.top_k = call.top_k;
  work.first_expert = first_expert_;
  work.tile_rows = std::min(decode_gate_up_->TileRows(slots), decode_down_->TileRows(slots));
  if (decode_gate_up_->Sorts(slots) && decode_down_->Sorts(slots)) {
    work.ids = call.ids;
    work.gather = true;
    work.position = parts.position;
  } else {
    BILLFISH_RETURN_IF_ERROR(Sort(call, parts, work.tile_rows, 0, stream));
    work.work = parts.work;
    work.work_count = parts.work_count;
    work.source = parts.source;
  }
  BILLFISH_RETURN_IF_ERROR(decode_gate_up_->Run(work, call.x, call.x_stride, parts.h, h_stride, stream));
  work.source = nullptr;
  work.gather = false;
  work.position = nullptr;
  work.x_padded = true;
  work.overlapped = true;
  return decode_down_->Run(work, parts.h, h_stride, parts.out, H_, stream);
}

Status MoePipeline::Combine(const MoeCall& call, const Parts& parts, CUstream stream) const {
  CombineArgs args;
  args.rows = parts.out;
  args.position = parts.position;
  args.weights = call.weights;
  args.addend = call.addend;
  args.y = call.y;
  args.y_stride = call.y_stride;
  args.T = static_cast<int32_t>(call.T);
  args.H = static_cast<int32_t>(H_);
  args.top_k = static_cast<int32_t>(call.top_k);
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(call.T);
  shape.grid_y = static_cast<uint32_t>(DivideUp(H_, 4 * kCombineThreads));
  shape.threads = kCombineThreads;
  shape.dependent = device_->arch().major >= 9;
  std::array<void*, 1> parameters = {&args};
  const auto& kernel = combine_[RowsType(call.T * call.top_k) == DType::kF32 ? 0 : 1][static_cast<size_t>(call.y_type)];
  return Launch(kernel, shape, stream, parameters);
}

void AppendMoeSpecs(Arch, std::vector<KernelSpec>& specs) {
  for (int in = 0; in < 2; ++in) {
    for (int out = 0; out < 3; ++out) specs.push_back(CombineSpec(in, out));
  }
}

}  // namespace billfish::cuda
