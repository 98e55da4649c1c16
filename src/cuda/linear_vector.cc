#include "cuda/linear_vector.h"

#include <algorithm>
#include <array>

#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/linear_vector_args.h"
#include "cuda/weight_defines.h"

namespace billfish::cuda {
namespace {

constexpr int kWarps = 16, kBlockRows = 16;
// Steps of a warp in the kernels that there are; kLinearVectorHeld take 96 of the 128 registers that a thread may have.
constexpr std::array<int, 4> kSteps = {4, 6, 10, 12};
static_assert(kSteps[1] == kLinearVectorHeld);

bool Has16Bits(const TileLayout& layout) { return layout.code_bits() == 16 && layout.scale == TileScale::kNone; }

uint32_t SharedBytes(int steps) { return static_cast<uint32_t>(kWarps * std::max(steps - kLinearVectorHeld, 0) * kLinearVectorStepBytes); }
// Beside what the kernel declares itself: parts of the row and sums.
bool Fits(int steps, Arch arch) {
  return SharedBytes(steps) + static_cast<uint32_t>(kWarps * (steps + 1) * 128 + 1024) <= static_cast<uint32_t>(arch.SharedBytesOfSm());
}

KernelSpec Spec(const TileLayout& layout, int steps) {
  KernelSpec spec;
  spec.file = "w16a16_linear_vector_sm80.cu";
  spec.function = "w16a16_linear_vector";
  spec.defines = WeightDefines(layout, layout.codes == TileCodes::kF16, {{"BF_WARPS", kWarps}, {"BF_STEPS", steps}});
  spec.shared_bytes = SharedBytes(steps);
  spec.hot = true;
  return spec;
}

}  // namespace

Result<std::optional<LinearVector>> LinearVector::Create(const GpuDevice& device, const TileView& weight) {
  const TileForm& form = weight.form;
  if (!Has16Bits(form.layout) || form.has_row_scale) return std::optional<LinearVector>();
  const int64_t blocks = form.panels * kPanelRows / kBlockRows, most = DivideUp(blocks, device.info().sms);
  const int64_t steps = DivideUp(most * form.units, kWarps);
  const auto kept = std::find_if(kSteps.begin(), kSteps.end(), [&](int some) { return steps <= some; });
  // A stretch of more steps than a block has could touch three blocks.
  if (kept == kSteps.end() || !Fits(*kept, device.arch()) || steps > form.units) return std::optional<LinearVector>();
  LinearVector vector;
  vector.weight_ = weight;
  // No more than it takes: the kernel before may still need the others.
  vector.ctas_ = static_cast<int32_t>(DivideUp(blocks, most));
  vector.shared_bytes_ = SharedBytes(*kept);
  BILLFISH_ASSIGN_OR_RETURN(vector.kernel_, LoadKernel(Spec(form.layout, *kept), device));
  return std::optional<LinearVector>(std::move(vector));
}

Status LinearVector::Run(const void* x, const TileOutput& y, CUstream stream) const {
  BILLFISH_ASSIGN_OR_RETURN(const OutType out, OutTypeOf(y.dtype, "a decode kernel"));
  const TileForm& form = weight_.form;
  const auto blocks = static_cast<int32_t>(form.panels * kPanelRows / kBlockRows);
  LinearVectorArgs args;
  args.weight = reinterpret_cast<const uint8_t*>(weight_.units);
  args.x = x;
  args.y = y.data;
  args.bias = weight_.bias;
  args.N = static_cast<int32_t>(form.N);
  args.K = static_cast<int32_t>(form.K);
  args.units = static_cast<int32_t>(form.units);
  args.per_unit = static_cast<uint32_t>(DivideUp(int64_t{1} << 24, form.units));
  args.blocks = blocks / ctas_;
  args.ctas_with_more = blocks % ctas_;
  args.out = out;
  const LaunchShape shape{.grid_x = static_cast<uint32_t>(ctas_), .threads = 32 * kWarps, .shared_bytes = shared_bytes_, .dependent = true};
  std::array<void*, 1> parameters = {&args};
  return Launch(kernel_, shape, stream, parameters);
}

void AppendLinearVectorSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  for (const TileCodes codes : {TileCodes::kBF16, TileCodes::kF16}) {
    for (const int steps : kSteps) {
      if (Fits(steps, arch)) specs.push_back(Spec({codes, TileScale::kNone, 0, false, false}, steps));
    }
  }
}

}  // namespace billfish::cuda
