#include "cuda/token_moe.h"

#include <algorithm>
#include <array>

#include "core/status_macros.h"
#include "cuda/driver.h"
#include "cuda/launch_memory.h"
#include "cuda/moe_args.h"
#include "cuda/shipped_layouts.h"
#include "cuda/weight_defines.h"

namespace billfish::cuda {
namespace {

// Dynamic shared memory of a CTA: what the system's and its static part leave.
int Room(Arch arch) { return arch.SharedBytesOfSm() - (16 << 10); }

// Of a row of x or h in shared memory.
int64_t RowBytes(const TileForm& form) { return form.units * form.layout.unit_k() * 2; }

TokenMatrix MatrixOf(const TileView& view) {
  TokenMatrix matrix{};
  matrix.weight = reinterpret_cast<const uint8_t*>(view.units);
  matrix.row_scale = view.row_scale;
  matrix.bias = view.bias;
  matrix.expert_bytes = static_cast<int64_t>(view.form.expert_bytes());
  matrix.K = static_cast<int32_t>(view.form.K);
  matrix.panels = static_cast<int32_t>(view.form.panels);
  matrix.units = static_cast<int32_t>(view.form.units);
  return matrix;
}

LaunchMemory& Counters() {
  static auto& counters = *new LaunchMemory(sizeof(TokenProgress), kMostTokenWorkspaces);
  return counters;
}

}  // namespace

TokenProgress* TokenProgressOf(const GpuDevice& device, const void* workspace) {
  return static_cast<TokenProgress*>(Counters().Of(device, workspace));
}

TokenVariant TokenVariantOf(const TileLayout& layout, Arch arch) {
  // A warp does one thing after the other: it takes some to keep the pipes busy, but fewer where steps are large. More than about 100 KB on
  // their way make reading slower.
  const int warps = layout.unit_bytes() <= 2560 ? 12 : 8;
  return {warps, std::clamp(Room(arch) * 2 / 3 / (warps * layout.unit_bytes()), 2, 6)};
}

KernelSpec TokenMoeSpec(const TileLayout& layout, Arch arch, const TokenVariant& variant, bool half, ActivationKind activation) {
  KernelSpec spec;
  spec.file = "w4a16_token_moe_sm80.cu";
  spec.function = "w4a16_token_moe";
  spec.defines = WeightDefines(
      layout, half, {{"BF_WARPS", variant.warps}, {"BF_STAGES", variant.stages}, {"BF_ACTIVATION", static_cast<int>(activation)}});
  spec.shared_bytes = static_cast<uint32_t>(Room(arch));
  spec.hot = true;
  return spec;
}

Result<std::optional<TokenMoe>> TokenMoe::Create(const GpuDevice& device, const TileView& gate_up, const TileView& down, DType dtype,
                                                 const Activation& activation) {
  const TileLayout& layout = gate_up.form.layout;
  if (layout != down.form.layout) return std::optional<TokenMoe>();
  TokenMoe moe;
  moe.device_ = &device;
  moe.gate_up_ = gate_up.form;
  moe.down_ = down.form;
  moe.variant_ = TokenVariantOf(layout, device.arch());
  const KernelSpec spec =
      TokenMoeSpec(layout, device.arch(), moe.variant_, dtype == DType::kF16, static_cast<ActivationKind>(activation.kind));
  BILLFISH_ASSIGN_OR_RETURN(moe.kernel_, LoadKernel(spec, device));
  BILLFISH_RETURN_IF_ERROR(Counters().Reserve(device));
  moe.args_.gate_up = MatrixOf(gate_up);
  moe.args_.down = MatrixOf(down);
  moe.args_.N = static_cast<int32_t>(down.form.N);
  moe.args_.E = static_cast<int32_t>(gate_up.form.E);
  moe.args_.activation = {activation.limit, activation.alpha, activation.beta};
  return std::optional<TokenMoe>(std::move(moe));
}

int64_t TokenMoe::Shares() const { return std::min<int64_t>(device_->info().sms, kMostTokenShares); }

int64_t TokenMoe::SumsBytes(int64_t shares) { return 2 * shares * kPanelRows * static_cast<int64_t>(sizeof(float)); }

// The dynamic shared memory of a launch.
int64_t TokenMoe::SharedBytes(int64_t top_k) const {
  const int64_t steps = variant_.warps * variant_.stages + 2;  // of the rings
  return steps * gate_up_.layout.unit_bytes() + RowBytes(gate_up_) + top_k * RowBytes(down_);
}

bool TokenMoe::Takes(int64_t top_k) const {
  // Steps times shares are counted in 32 bits.
  const int64_t steps = top_k * (gate_up_.panels * gate_up_.units + down_.panels * down_.units);
  return top_k <= kMostTokenSlots && SharedBytes(top_k) <= Room(device_->arch()) && steps * (kMostTokenShares + 1) < INT32_MAX;
}

Status TokenMoe::Run(const TokenMoeCall& call, TokenProgress* progress, CUstream stream) const {
  TokenMoeArgs args = args_;
  args.x = call.x;
  args.h = call.h;
  args.ids = call.ids;
  args.weights = call.weights;
  args.addend = call.addend;
  args.y = call.y;
  args.sums = call.sums;
  args.progress = progress;
  args.h_stride = static_cast<int32_t>(call.h_stride);
  args.top_k = static_cast<int32_t>(call.top_k);
  args.first_expert = static_cast<int32_t>(call.first_expert);
  args.x_aligned = reinterpret_cast<uintptr_t>(call.x) % 16 == 0 && args.gate_up.K % 8 == 0 ? 1 : 0;
  args.y_type = call.y_type;
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(call.shares);
  shape.threads = static_cast<uint32_t>((variant_.warps + 2) * 32);  // one collects sums, one fetches rows
  shape.shared_bytes = static_cast<uint32_t>(SharedBytes(call.top_k));
  shape.dependent = device_->arch().major >= 9;
  std::array<void*, 1> parameters = {&args};
  return Launch(kernel_, shape, stream, parameters);
}

void AppendTokenMoeSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  for (const TileLayout& layout : kShippedLayouts) {
    specs.push_back(TokenMoeSpec(layout, arch, TokenVariantOf(layout, arch), false, ActivationKind::kSwiglu));
  }
}

}  // namespace billfish::cuda
