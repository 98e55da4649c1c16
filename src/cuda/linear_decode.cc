#include "cuda/linear_decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>

#include "core/status_macros.h"
#include "cuda/driver_api.h"
#include "cuda/weight_defines.h"

namespace billfish::cuda {
namespace {

constexpr int kMostSplitsLog2 = 3;  // the largest cluster that every device takes is 8

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool HasClusters(Arch arch) { return arch.major >= 9; }

// Dynamic shared memory that a CTA may use where `blocks` share an SM (CUDA C++ Programming Guide, "Technical Specifications per Compute
// Capability"; 1 KB a CTA is the system's).
int64_t SharedOfBlock(Arch arch, int blocks) {
  int sm = 228 << 10;
  if (arch.number() == 80) sm = 164 << 10;
  if (arch.number() == 86 || arch.number() == 89 || arch.number() == 120) sm = 100 << 10;
  return sm / blocks - 1024;
}

// Of a warp's ring: kStageBytes of the kernel.
int64_t StageBytes(const TileLayout& layout, const LinearDecodeVariant& v) {
  const int scales = layout.zeros ? layout.scale_bytes() : layout.scale_bytes() * v.row_blocks / 4;
  const int64_t weight = DivideUp(layout.code_bytes() * v.row_blocks / 4 + scales + layout.zero_bytes() * v.row_blocks / 4, 16) * 16;
  const int units = LinearDecodeStepUnits(layout);
  return v.stream_x ? DivideUp(units * weight, 256) * 256 + v.tokens * units * layout.unit_k() * 2 : units * weight;
}

// Rings and Reduction::Shared.
int64_t BytesBesideX(const TileLayout& layout, const LinearDecodeVariant& v) {
  const int64_t sums = int64_t{v.warps} * v.row_blocks * (v.tokens / 8) * 128 * 4, factors = 2 * v.row_blocks * 16 * 4, barriers = 16;
  return v.groups * (v.warps * v.stages * StageBytes(layout, v) + v.buffers * (sums + factors + barriers));
}

// A row of the longest part of K in shared memory. For ldmatrix an odd number of 16-byte chunks, so that eight rows lie in different banks.
int64_t XRowBytes(const TileLayout& layout, int64_t units, int splits_log2) {
  return DivideUp(units, int64_t{1} << splits_log2) * layout.unit_k() * 2 + 16;
}

int64_t SharedBytes(const TileLayout& layout, const LinearDecodeVariant& v, int64_t units, int splits_log2, int64_t M) {
  return BytesBesideX(layout, v) + (v.stream_x ? 0 : M * XRowBytes(layout, units, splits_log2));
}

// How many clusters of this size the device runs at the same time: it is cut into parts whose sizes no cluster size need divide.
Result<int> ActiveClusters(const GpuDevice& device, const LoadedKernel& kernel, const LinearDecodeVariant& v, int size, int64_t shared) {
  const int ctas = device.info().sms * v.blocks;
  if (size == 1) return ctas;
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  CUlaunchAttribute attribute{};
  attribute.id = kLaunchClusterDimension;
  attribute.value.cluster_dim = {static_cast<unsigned>(size), 1, 1};
  const CUlaunchConfig config = {static_cast<unsigned>(ctas / size * size),
                                 1,
                                 1,
                                 static_cast<unsigned>(v.groups * v.warps * 32),
                                 1,
                                 1,
                                 static_cast<unsigned>(shared),
                                 nullptr,
                                 &attribute,
                                 1};
  int clusters = 0;
  BILLFISH_RETURN_IF_ERROR(Check(api->OccupancyMaxActiveClusters(&clusters, kernel.function, &config), "counting clusters that fit"));
  return clusters;
}

// The deepest ring, up to what keeps the memory busy, that leaves room for x; false if there is no room for a ring of three stages.
bool FitStages(const TileLayout& layout, int64_t units, Arch arch, LinearDecodeVariant& v) {
  // Bytes under way in an SM: more do not make reading faster.
  constexpr int64_t kWanted = 105 << 10, kShortest = 3, kDeepest = 16;
  const int64_t wanted = std::clamp<int64_t>(1 + kWanted / (StageBytes(layout, v) * v.warps * v.groups * v.blocks), kShortest, kDeepest);
  const int splits_log2 = HasClusters(arch) ? kMostSplitsLog2 : 0;
  for (v.stages = static_cast<int>(wanted); v.stages >= kShortest; --v.stages) {
    if (SharedBytes(layout, v, units, splits_log2, v.tokens) <= SharedOfBlock(arch, v.blocks)) return true;
  }
  return false;
}

// All warps of a CTA at one item: the least time for few items. x stays in shared memory if any such kernel leaves room for it.
LinearDecodeVariant OneGroup(const TileLayout& layout, int64_t units, Arch arch, int tokens) {
  LinearDecodeVariant v{.tokens = tokens, .buffers = tokens == 8 ? 2 : 1};
  for (const bool stream_x : {false, true}) {
    for (const auto& [row_blocks, warps] : {std::array{4, 8}, {2, 8}, {2, 4}, {1, 4}, {1, 1}}) {
      v.stream_x = stream_x, v.row_blocks = row_blocks, v.warps = warps;
      if (FitStages(layout, units, arch, v)) return v;
    }
  }
  return v;
}

// Microseconds that a group of a variant takes for an item, measured on an H200 with int4, g128: for each of its units and for its end.
// Only their ratios matter.
double ItemTime(const TileLayout& layout, const LinearDecodeVariant& v, int64_t slice) {
  const double size = layout.unit_bytes() / 4352.0, blocks = v.row_blocks / 4.0;
  return v.groups > 1 ? 0.49 * blocks * size * static_cast<double>(slice) + 0.9 : 0.115 * blocks * size * static_cast<double>(slice) + 1.3;
}

}  // namespace

std::vector<LinearDecodeVariant> LinearDecodeVariants(const TileLayout& layout, int64_t units, Arch arch) {
  std::vector<LinearDecodeVariant> variants;
  for (const int tokens : {8, 16}) {
    variants.push_back(OneGroup(layout, units, arch, tokens));
    // Four groups end their items at different times, so that a CTA is never without work: for many items.
    LinearDecodeVariant v{.tokens = tokens, .row_blocks = 2, .groups = 4, .warps = 4};
    if (FitStages(layout, units, arch, v)) variants.push_back(v);
  }
  return variants;
}

KernelSpec LinearDecodeSpec(const TileLayout& layout, const LinearDecodeVariant& v, bool half, Arch arch) {
  KernelSpec spec;
  spec.file = "w4a16_linear_decode_sm80.cu";
  spec.function = "w4a16_linear_decode";
  spec.defines = WeightDefines(layout, half,
                               {{"BF_TOKENS", v.tokens},
                                {"BF_ROW_BLOCKS", v.row_blocks},
                                {"BF_GROUPS", v.groups},
                                {"BF_WARPS", v.warps},
                                {"BF_BLOCKS", v.blocks},
                                {"BF_STAGES", v.stages},
                                {"BF_BUFFERS", v.buffers},
                                {"BF_STREAM_X", v.stream_x}});
  spec.shared_bytes = static_cast<uint32_t>(SharedOfBlock(arch, v.blocks));
  spec.hot = true;
  return spec;
}

Result<LinearDecode> LinearDecode::Create(const GpuDevice& device, const TileView& weight, DType activation) {
  BILLFISH_RETURN_IF_ERROR(CheckActivation(weight.form.layout, activation));
  if (weight.form.E != 1 || weight.form.order != RowOrder::kPlain) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("a dense decode kernel was asked for a weight with {} experts in {} row order; it takes one matrix in plain order",
                    weight.form.E, weight.form.order == RowOrder::kPlain ? "plain" : "a gate-up"));
  }
  const TileLayout& layout = weight.form.layout;
  LinearDecode decode;
  decode.device_ = &device;
  decode.weight_ = weight;
  for (const LinearDecodeVariant& variant : LinearDecodeVariants(layout, weight.form.units, device.arch())) {
    const KernelSpec spec = LinearDecodeSpec(layout, variant, activation == DType::kF16, device.arch());
    BILLFISH_ASSIGN_OR_RETURN(LoadedKernel kernel, LoadKernel(spec, device));
    Loaded loaded{variant, std::move(kernel)};
    for (int s = 0; s <= (HasClusters(device.arch()) && !variant.stream_x ? kMostSplitsLog2 : 0); ++s) {
      const int64_t shared = SharedBytes(layout, variant, weight.form.units, s, 1);
      if (shared > SharedOfBlock(device.arch(), variant.blocks)) continue;
      BILLFISH_ASSIGN_OR_RETURN(loaded.clusters[static_cast<size_t>(s)], ActiveClusters(device, loaded.kernel, variant, 1 << s, shared));
    }
    decode.loaded_.push_back(std::move(loaded));
  }
  return decode;
}

LinearDecodePlan LinearDecode::PlanFor(int64_t M) const {
  const TileForm& form = weight_.form;
  LinearDecodePlan plan;
  double best = std::numeric_limits<double>::infinity();
  const int tokens = M <= 8 ? 8 : 16;
  for (size_t i = 0; i < loaded_.size(); ++i) {
    const LinearDecodeVariant& v = loaded_[i].variant;
    if (v.tokens != tokens) continue;
    const int64_t items = form.panels * 4 / v.row_blocks;
    for (int s = 0; s <= kMostSplitsLog2; ++s) {
      const int64_t most = loaded_[i].clusters[static_cast<size_t>(s)];
      if (most == 0 || SharedBytes(form.layout, v, form.units, s, M) > SharedOfBlock(device_->arch(), v.blocks)) continue;
      const int64_t clusters = std::min(most, DivideUp(items, v.groups)), rounds = DivideUp(items, clusters * v.groups);
      const double time = static_cast<double>(rounds) * ItemTime(form.layout, v, DivideUp(form.units, int64_t{1} << s));
      if (time >= best) continue;
      best = time;
      plan = {i, s, static_cast<int>(clusters)};
    }
  }
  return plan;
}

Status LinearDecode::Run(const void* x, int64_t x_stride, int64_t M, const TileOutput& y, CUstream stream) const {
  BILLFISH_ASSIGN_OR_RETURN(const OutType out, OutTypeOf(y.dtype, "a decode kernel"));
  const TileForm& form = weight_.form;
  for (int64_t first = 0; first < M; first += RowsOfPass()) {
    const int64_t rows = std::min(M - first, RowsOfPass());
    const LinearDecodePlan plan = PlanFor(rows);
    const Loaded& loaded = loaded_[plan.variant];
    LinearDecodeArgs args;
    args.weight = reinterpret_cast<const uint8_t*>(weight_.units);
    args.row_scale = weight_.row_scale;
    args.bias = weight_.bias;
    args.x = static_cast<const uint16_t*>(x) + first * x_stride;
    args.y = static_cast<std::byte*>(y.data) + first * y.stride * DTypeBits(y.dtype) / 8;
    args.x_stride = x_stride;
    args.y_stride = y.stride;
    args.M = static_cast<int32_t>(rows);
    args.N = static_cast<int32_t>(form.N);
    args.K = static_cast<int32_t>(form.K);
    args.panels = static_cast<int32_t>(form.panels);
    args.units = static_cast<int32_t>(form.units);
    args.splits_log2 = plan.splits_log2;
    args.x_row_bytes = static_cast<int32_t>(XRowBytes(form.layout, form.units, plan.splits_log2));
    args.out = out;
    args.x_aligned = reinterpret_cast<uintptr_t>(args.x) % 16 == 0 && x_stride % 8 == 0 ? 1 : 0;
    LaunchShape shape;
    shape.grid_x = static_cast<uint32_t>(plan.clusters) << plan.splits_log2;
    shape.threads = static_cast<uint32_t>(loaded.variant.groups * loaded.variant.warps * 32);
    shape.shared_bytes = static_cast<uint32_t>(SharedBytes(form.layout, loaded.variant, form.units, plan.splits_log2, rows));
    shape.cluster_x = 1U << plan.splits_log2;
    shape.dependent = HasClusters(device_->arch());
    std::array<void*, 1> parameters = {&args};
    BILLFISH_RETURN_IF_ERROR(Launch(loaded.kernel, shape, stream, parameters));
  }
  return OkStatus();
}

void AppendLinearDecodeSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  // The layouts that models ship with; the others are compiled when first used.
  constexpr std::array<TileLayout, 5> kLayouts = {{{TileCodes::kInt4, TileScale::kBF16, 128, false, false},
                                                   {TileCodes::kE2M1, TileScale::kE8M0, 32, false, false},
                                                   {TileCodes::kE2M1, TileScale::kE4M3, 16, false, false},
                                                   {TileCodes::kE4M3, TileScale::kF32, 128, false, false},
                                                   {TileCodes::kBF16, TileScale::kNone, 0, false, false}}};
  for (const TileLayout& layout : kLayouts) {
    const int64_t units = TileUnits(layout, 4096);
    for (const LinearDecodeVariant& v : LinearDecodeVariants(layout, units, arch))
      specs.push_back(LinearDecodeSpec(layout, v, false, arch));
  }
  // Zero points, fp16, and a row of x that is too long for shared memory.
  constexpr TileLayout kZeros{TileCodes::kInt4, TileScale::kF16, 128, true, false};
  for (const LinearDecodeVariant& v : LinearDecodeVariants(kZeros, TileUnits(kZeros, 1 << 20), arch)) {
    specs.push_back(LinearDecodeSpec(kZeros, v, true, arch));
  }
}

}  // namespace billfish::cuda
