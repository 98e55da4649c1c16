#include "cuda/held_moe.h"

#include <algorithm>
#include <array>

#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/driver.h"
#include "cuda/launch_memory.h"
#include "cuda/shipped_layouts.h"
#include "cuda/weight_defines.h"

namespace billfish::cuda {
namespace {

constexpr int kWarps = 16;

// Dynamic shared memory of a CTA: what the system's and its static part leave.
int Room(Arch arch) { return arch.SharedBytesOfSm() - (16 << 10); }

HeldMatrix MatrixOf(const TileView& view) {
  HeldMatrix matrix{};
  matrix.weight = reinterpret_cast<const uint8_t*>(view.units);
  matrix.row_scale = view.row_scale;
  matrix.bias = view.bias;
  matrix.expert_chunks = static_cast<int32_t>(view.form.expert_bytes() / 16);
  matrix.blocks = static_cast<int32_t>(view.form.panels * 4);
  matrix.units = static_cast<int32_t>(view.form.units);
  return matrix;
}

// The pieces of a warp.
int64_t PieceBytes(const TileLayout& layout, const HeldMoeArgs& args) {
  return (args.gate_up_blocks * args.gate_up_units + args.down_units) * static_cast<int64_t>(layout.unit_bytes() / 4);
}

// x and h behind the pieces, and a row more: a step may read beyond the last.
int64_t SharedBytes(const TileLayout& layout, const HeldMoeArgs& args) {
  const int64_t row = layout.unit_k() * 2;
  return kWarps * (PieceBytes(layout, args) + args.down_units * row) + (args.gate_up.units + 1) * row;
}

bool Overlap(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes) {
  const auto first = reinterpret_cast<intptr_t>(a), second = reinterpret_cast<intptr_t>(b);
  return first < second + b_bytes && second < first + a_bytes;
}

LaunchMemory& Exchanges() {
  static auto& exchanges = *new LaunchMemory(sizeof(HeldExchange), kMostHeldWorkspaces);
  return exchanges;
}

// values: BF_VALUES, 0 for a kernel that does not route.
KernelSpec HeldMoeSpec(const TileLayout& layout, Arch arch, bool half, ActivationKind activation, int values) {
  KernelSpec spec;
  spec.file = "w4a16_held_moe_sm80.cu";
  spec.function = "w4a16_held_moe";
  spec.defines =
      WeightDefines(layout, half, {{"BF_WARPS", kWarps}, {"BF_ACTIVATION", static_cast<int>(activation)}, {"BF_VALUES", values}});
  spec.shared_bytes = static_cast<uint32_t>(Room(arch));
  spec.hot = true;
  return spec;
}

}  // namespace

HeldExchange* HeldExchangeOf(const GpuDevice& device, const void* workspace) {
  return static_cast<HeldExchange*>(Exchanges().Of(device, workspace));
}

Result<std::optional<HeldMoe>> HeldMoe::Create(const GpuDevice& device, const TileView& gate_up, const TileView& down, DType dtype,
                                               const Activation& activation) {
  HeldMoe moe;
  moe.device_ = &device;
  moe.layout_ = gate_up.form.layout;
  moe.features_ = activation.gated() ? 8 : 16;
  moe.args_.gate_up = MatrixOf(gate_up);
  moe.args_.down = MatrixOf(down);
  moe.args_.K = static_cast<int32_t>(gate_up.form.K);
  moe.args_.N = static_cast<int32_t>(down.form.N);
  moe.args_.E = static_cast<int32_t>(gate_up.form.E);
  moe.args_.activation = {activation.limit, activation.alpha, activation.beta};
  const auto most_bytes = static_cast<int64_t>(std::max(gate_up.form.expert_bytes(), down.form.expert_bytes()));
  if (moe.layout_ != down.form.layout || most_bytes > INT32_MAX || most_bytes / 16 * moe.args_.E > UINT32_MAX || !moe.Fits(2)) {
    return std::optional<HeldMoe>();
  }
  const auto load = [&](int values) {
    const auto kind = static_cast<ActivationKind>(activation.kind);
    return LoadKernel(HeldMoeSpec(moe.layout_, device.arch(), dtype == DType::kF16, kind, values), device);
  };
  BILLFISH_ASSIGN_OR_RETURN(moe.kernel_, load(0));
  if (dtype == DType::kBF16 && moe.args_.E <= kMostHeldLogits) {
    BILLFISH_ASSIGN_OR_RETURN(moe.normed_, load(moe.Values()));
  }
  BILLFISH_RETURN_IF_ERROR(Exchanges().Reserve(device));
  return std::optional<HeldMoe>(std::move(moe));
}

HeldMoeArgs HeldMoe::ArgsOf(int64_t top_k) const {
  HeldMoeArgs args = args_;
  args.top_k = static_cast<int32_t>(top_k);
  args.gate_up_blocks = static_cast<int32_t>(DivideUp(top_k * args.gate_up.blocks, device_->info().sms));
  args.gate_up_units = static_cast<int32_t>(DivideUp(args.gate_up.units, kWarps));
  args.down_units = static_cast<int32_t>(DivideUp(top_k * args.down.units, kWarps));
  return args;
}

bool HeldMoe::Fits(int64_t top_k) const {
  const int sms = device_->info().sms;
  if (top_k > kMostHeldSlots || sms > kMostHeldCtas || args_.down.blocks > sms) return false;
  if (top_k * args_.gate_up.blocks > sms * int64_t{kMostHeldBlocks} || top_k * args_.down.units > kWarps * int64_t{kMostHeldUnits})
    return false;
  return top_k * args_.gate_up.blocks * features_ <= kMostHeldValues && SharedBytes(layout_, ArgsOf(top_k)) <= Room(device_->arch());
}

int HeldMoe::Values() const { return args_.E <= 128 ? 4 : 8; }

int64_t HeldMoe::YBytes(OutType type) const { return args_.N * int64_t{type == OutType::kF32 ? 4 : 2}; }

bool HeldMoe::Takes(const HeldMoeCall& call) const {
  if (Overlap(call.x, args_.K * int64_t{2}, call.y, YBytes(call.y_type))) return false;
  return reinterpret_cast<uintptr_t>(call.x) % 16 == 0 && args_.K % 8 == 0 && Fits(call.top_k);
}

Status HeldMoe::Run(const HeldMoeCall& call, HeldExchange* exchange, CUstream stream) const {
  HeldMoeArgs args = ArgsOf(call.top_k);
  args.x = call.x;
  args.ids = call.ids;
  args.weights = call.weights;
  args.addend = call.addend;
  args.y = call.y;
  args.exchange = exchange;
  args.first_expert = static_cast<int32_t>(call.first_expert);
  args.y_type = call.y_type;
  return Start(kernel_, args, &args, stream);
}

bool HeldMoe::Takes(const HeldNormedCall& call) const {
  if (!normed_ || call.norm.M != 1 || call.norm.H != args_.K || !IsPlainSoftmax(call.route) || call.route.E > 32 * Values()) return false;
  for (const float* stream : {call.norm.x, call.norm.delta, static_cast<const float*>(call.norm.sum)}) {
    if (stream != nullptr && Overlap(stream, args_.K * int64_t{4}, call.y, YBytes(call.y_type))) return false;
  }
  const bool aligned = reinterpret_cast<uintptr_t>(call.router) % 16 == 0 && args_.K % 8 == 0;
  // A warp has an expert's row of the router at most, which lies where its pieces will.
  return aligned && call.route.E <= device_->info().sms * kWarps && Fits(call.route.top_k) &&
         PieceBytes(layout_, ArgsOf(call.route.top_k)) >= args_.K * int64_t{2};
}

Status HeldMoe::Run(const HeldNormedCall& call, HeldExchange* exchange, CUstream stream) const {
  HeldNormedArgs args;
  static_cast<HeldMoeArgs&>(args) = ArgsOf(call.route.top_k);
  args.y = call.y;
  args.exchange = exchange;
  args.first_expert = static_cast<int32_t>(call.first_expert);
  args.y_type = call.y_type;
  args.norm = call.norm;
  args.norm.y = nullptr;
  args.router = call.router;
  args.logit_bias = call.logit_bias;
  args.route = call.route;
  args.route.T = 1;
  return Start(*normed_, args, &args, stream);
}

Status HeldMoe::Start(const LoadedKernel& kernel, const HeldMoeArgs& shape, void* args, CUstream stream) const {
  LaunchShape launch;
  // Always as many: each CTA counts the launches of a workspace for itself.
  launch.grid_x = static_cast<uint32_t>(device_->info().sms);
  launch.threads = kWarps * 32;
  launch.shared_bytes = static_cast<uint32_t>(SharedBytes(layout_, shape));
  launch.dependent = device_->arch().major >= 9;
  std::array<void*, 1> parameters = {args};
  return Launch(kernel, launch, stream, parameters);
}

void AppendHeldMoeSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  for (const TileLayout& layout : kShippedLayouts) {
    for (const int values : {0, 4}) specs.push_back(HeldMoeSpec(layout, arch, false, ActivationKind::kSwiglu, values));
  }
}

}  // namespace billfish::cuda
