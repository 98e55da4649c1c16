#include "cuda/held_moe.h"

#include <array>

#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/driver.h"
#include "cuda/launch_memory.h"
#include "cuda/weight_defines.h"

namespace billfish::cuda {
namespace {

constexpr int kWarps = 16;
constexpr size_t kMostWorkspaces = 128;

bool Same(const TileLayout& a, const TileLayout& b) {
  return a.codes == b.codes && a.scale == b.scale && a.group == b.group && a.zeros == b.zeros && a.wide_scales == b.wide_scales;
}

// Dynamic shared memory of a CTA: what the system's and its static part leave.
int Room(Arch arch) { return arch.SharedBytesOfSm() - (16 << 10); }

HeldMatrix MatrixOf(const TileView& view) {
  HeldMatrix matrix{};
  matrix.weight = reinterpret_cast<const uint8_t*>(view.units);
  matrix.row_scale = view.row_scale;
  matrix.bias = view.bias;
  matrix.expert_bytes = static_cast<int64_t>(view.form.expert_bytes());
  matrix.blocks = static_cast<int32_t>(view.form.panels * 4);
  matrix.units = static_cast<int32_t>(view.form.units);
  return matrix;
}

// Rows of x and h of a warp behind its pieces, and one more: a step may read beyond the last.
int64_t SharedBytes(const TileLayout& layout, const HeldMoeArgs& args) {
  const int64_t piece = layout.unit_bytes() / 4, row = layout.unit_k() * 2;
  return kWarps * ((args.gate_up_blocks * args.gate_up_units + args.down_units) * piece + (args.gate_up_units + args.down_units) * row) +
         row;
}

LaunchMemory& Exchanges() {
  static auto& exchanges = *new LaunchMemory(sizeof(HeldExchange), kMostWorkspaces);
  return exchanges;
}

KernelSpec HeldMoeSpec(const TileLayout& layout, Arch arch, bool half, ActivationKind activation) {
  KernelSpec spec;
  spec.file = "w4a16_held_moe_sm80.cu";
  spec.function = "w4a16_held_moe";
  spec.defines = WeightDefines(layout, half, {{"BF_WARPS", kWarps}, {"BF_ACTIVATION", static_cast<int>(activation)}});
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
  if (!Same(moe.layout_, down.form.layout) || gate_up.form.expert_bytes() > INT32_MAX || down.form.expert_bytes() > INT32_MAX ||
      !moe.Fits(2)) {
    return std::optional<HeldMoe>();
  }
  const KernelSpec spec = HeldMoeSpec(moe.layout_, device.arch(), dtype == DType::kF16, static_cast<ActivationKind>(activation.kind));
  BILLFISH_ASSIGN_OR_RETURN(moe.kernel_, LoadKernel(spec, device));
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

bool HeldMoe::Takes(const HeldMoeCall& call) const {
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
  args.y_type = call.y_dtype == DType::kF32 ? 0 : call.y_dtype == DType::kBF16 ? 1 : 2;
  LaunchShape shape;
  // Always as many: each CTA counts the launches of a workspace for itself.
  shape.grid_x = static_cast<uint32_t>(device_->info().sms);
  shape.threads = kWarps * 32;
  shape.shared_bytes = static_cast<uint32_t>(SharedBytes(layout_, args));
  shape.dependent = device_->arch().major >= 9;
  std::array<void*, 1> parameters = {&args};
  return Launch(kernel_, shape, stream, parameters);
}

void AppendHeldMoeSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  // The layouts that models ship with; everything else is compiled when a model first needs it.
  constexpr TileLayout kMxfp4{TileCodes::kE2M1, TileScale::kE8M0, 32, false, false};
  constexpr TileLayout kNvfp4{TileCodes::kE2M1, TileScale::kE4M3, 16, false, false};
  constexpr TileLayout kInt4{TileCodes::kInt4, TileScale::kBF16, 128, false, false};
  for (const TileLayout& layout : {kMxfp4, kNvfp4, kInt4}) specs.push_back(HeldMoeSpec(layout, arch, false, ActivationKind::kSwiglu));
}

}  // namespace billfish::cuda
