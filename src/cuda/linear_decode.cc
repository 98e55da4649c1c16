#include "cuda/linear_decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/driver_api.h"
#include "cuda/shipped_layouts.h"
#include "cuda/tensor_boxes.h"
#include "cuda/weight_defines.h"

namespace billfish::cuda {
namespace {

constexpr int64_t kSmallShared = 128 << 10, kLargeShared = 200 << 10, kHalfShared = 80 << 10;
constexpr int kLeastWgmmaRows = 5;  // with fewer, the other kernel is as fast or faster
constexpr int kMostSplitsLog2 = 3;  // the largest cluster that every device takes is 8

bool HasClusters(Arch arch) { return arch.major >= 9; }
bool HasWgmma(Arch arch) { return arch.major == 9; }

// Dynamic shared memory that a CTA may use where `blocks` share an SM.
int64_t SharedOfBlock(Arch arch, int blocks) { return arch.SharedBytesOfSm() / blocks - 1024; }

int64_t Steps(const TileForm& form, const LinearDecodeVariant& v) { return DivideUp(form.units, v.step_units); }

// Warps that go along a block of rows side by side.
int Team(const LinearDecodeVariant& v) { return v.wgmma ? 4 : 1; }

// In the ring of a warp.
int64_t StepBytes(const TileLayout& layout, const LinearDecodeVariant& v) {
  return int64_t{v.step_units} * layout.unit_bytes() * v.row_blocks / (4 * Team(v));
}

int64_t Blocks(const TileForm& form, const LinearDecodeVariant& v) { return form.panels * 4 / v.row_blocks; }

// RingSteps::kSharedBytes, KeptRows::Shared, BlockSums::Bytes. `blocks`: of rows, of the cluster that has most.
int64_t BytesBesideX(const TileLayout& layout, const LinearDecodeVariant& v, int splits_log2, int64_t blocks, int64_t M) {
  const int64_t team = Team(v), rows = 16 * v.row_blocks / team;
  const int64_t sums = rows / 2 * (v.tokens / 8) * std::min<int64_t>(DivideUp(M, 2), 4) * 16;
  const int64_t others = (1 << splits_log2) - 1, owned = DivideUp(blocks, int64_t{1} << splits_log2) * team;
  const int64_t rings = v.warps * v.stages * StepBytes(layout, v), parts = 4 * 8;
  return (v.wgmma ? RoundUp(rings, 1024) : rings) + parts + v.warps * (2 * rows * 4 + 8) + (v.warps - team + owned * others) * sums +
         (others > 0 ? owned * 16 : 0);
}

// A row of the longest slice of K in shared memory. For ldmatrix an odd number of 16-byte chunks, so that eight rows lie in different
// banks.
int64_t XRowBytes(const TileForm& form, const LinearDecodeVariant& v, int splits_log2) {
  return DivideUp(Steps(form, v), int64_t{1} << splits_log2) * v.step_units * form.layout.unit_k() * 2 + (v.wgmma ? 0 : 16);
}

int64_t SharedBytes(const TileForm& form, const LinearDecodeVariant& v, int splits_log2, int64_t clusters, int64_t M) {
  const int64_t rows = v.stream_x ? 0 : v.wgmma ? v.tokens : M;
  return BytesBesideX(form.layout, v, splits_log2, DivideUp(Blocks(form, v), clusters), M) + rows * XRowBytes(form, v, splits_log2);
}

// How many clusters of this size the device runs at the same time with v.blocks CTAs an SM: it is cut into parts whose sizes no cluster
// size need divide.
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
                                 static_cast<unsigned>(v.warps * 32),
                                 1,
                                 1,
                                 static_cast<unsigned>(shared),
                                 nullptr,
                                 &attribute,
                                 1};
  int clusters = 0;
  BILLFISH_RETURN_IF_ERROR(Check(api->OccupancyMaxActiveClusters(&clusters, kernel.function, &config), "counting clusters that fit"));
  return std::min(clusters, ctas / size);
}

// Microseconds of a call on an H200, fitted to measurements; only the ratios matter. The CTA that has most has `blocks` blocks of rows and
// `slice` steps of K, and the fullest SM `per_sm` CTAs.
double CallTime(const TileLayout& layout, const LinearDecodeVariant& v, int64_t blocks, int64_t slice, int splits_log2, int64_t per_sm,
                int64_t x_bytes) {
  struct Costs {
    double start;    // and end
    double weight;   // of a KB of an SM's share, in whole steps of each warp
    double x;        // of a KB of its copies of x
    double split;    // of each halving of K
    double meeting;  // of each block for which a cluster meets
  };
  const bool few = v.tokens == 8, narrow = v.row_blocks == 1;
  const int64_t teams = v.warps / Team(v), steps = DivideUp(blocks * slice, teams) * teams;
  const Costs costs =
      v.wgmma         ? Costs{0.95, v.stages == 3 ? 0.0311 : 0.032, 0.017, 1.4, 0.0}
      : !few          ? (narrow ? Costs{0.9, splits_log2 == 3 ? 0.032 : 0.0264, 0.052, 0.18, 0.14} : Costs{2.1, 0.0236, 0.04, 0.13, 0.19})
      : !narrow       ? Costs{3.3, 0.0267, 0.03, 0.15, 0.015}
      : v.blocks == 1 ? Costs{3.4, 0.03, 0.022, 0.4, 0.03}
      : per_sm > 1    ? Costs{steps < 4 * v.warps ? 2.7 : 1.9, 0.0295, 0.028, 0.5, 0.04}
                      : Costs{2.3, 0.03, 0.03, 0.15, 0.02};
  const auto ctas = static_cast<double>(per_sm);
  const double weight = ctas * static_cast<double>(steps * StepBytes(layout, v) * Team(v)) / 1e3;
  const double x = (v.stream_x ? 8.0 * static_cast<double>(blocks) : ctas) * static_cast<double>(x_bytes) / 1e3;
  const double meetings = splits_log2 == 0 ? 0.0 : ctas * static_cast<double>(blocks);
  return costs.start + costs.weight * weight + costs.x * x + costs.split * splits_log2 + costs.meeting * meetings;
}

// Units of which a warp copies the scales of so many blocks of rows in one go, 16 bytes a lane.
int MostUnits(const TileLayout& layout, int row_blocks) {
  return layout.scale_bytes() == 0 ? kMostStepUnits : std::min(32 * 16 / (layout.scale_bytes() / 4 * row_blocks), kMostStepUnits);
}

}  // namespace

std::vector<LinearDecodeVariant> LinearDecodeVariants(const TileLayout& layout, Arch arch) {
  const int step_units = layout.code_bits() == 4 && layout.unit_k() == 64 ? std::min(MostUnits(layout, 2), 2) : 1;
  // Bytes of a lane in a step of one row block: 32, or 64 where codes are wide.
  const bool wide = step_units * layout.code_bytes() / kTileThreads > 32;
  const int warps = SharedOfBlock(arch, 1) > kSmallShared ? 16 : 8;
  std::vector<LinearDecodeVariant> variants;
  for (const int tokens : {8, 16}) {
    const LinearDecodeVariant streamed{
        .tokens = tokens, .step_units = step_units, .row_blocks = wide ? 1 : 2, .warps = warps, .stream_x = true};
    LinearDecodeVariant large = streamed, small = streamed;
    large.stream_x = small.stream_x = false;
    // Scales that are folded into the codes leave registers for more warps, which decoding for more rows of x needs more than bytes in
    // flight.
    if (tokens == 16 && warps == 16 && !wide && layout.scale_size() == 1 && HasClusters(arch)) large.warps = 20, large.stages = 2;
    small.row_blocks = 1;
    if (tokens == 8 && SharedOfBlock(arch, 2) > kHalfShared) small.blocks = 2;
    variants.push_back(large);
    if (!wide && !(tokens == 16 && HasWgmma(arch))) variants.push_back(small);
    variants.push_back(streamed);
    if (!HasWgmma(arch)) continue;
    // Steps of 8 KB of a panel, or of half of that where rows of x leave less room for rings.
    const int units = std::clamp(8192 / layout.code_bytes(), 1, MostUnits(layout, 1));
    variants.push_back({.tokens = tokens, .step_units = units, .row_blocks = 4, .stages = 3, .wgmma = true});
    if (tokens == 16 && units > 1) {
      variants.push_back({.tokens = tokens, .step_units = units / 2, .row_blocks = 4, .stages = 4, .wgmma = true});
    }
  }
  return variants;
}

KernelSpec LinearDecodeSpec(const TileLayout& layout, const LinearDecodeVariant& v, bool half, Arch arch) {
  KernelSpec spec;
  if (v.wgmma) {
    spec.file = "w4a16_linear_decode_sm90a.cu";
    spec.function = "w4a16_linear_decode_sm90a";
    spec.defines = WeightDefines(
        layout, half, {{"BF_STEP_UNITS", v.step_units}, {"BF_TOKENS", v.tokens}, {"BF_WARPS", v.warps}, {"BF_STAGES", v.stages}});
  } else {
    spec.file = "w4a16_linear_decode_sm80.cu";
    spec.function = "w4a16_linear_decode";
    spec.defines = WeightDefines(layout, half,
                                 {{"BF_STEP_UNITS", v.step_units},
                                  {"BF_TOKENS", v.tokens},
                                  {"BF_ROW_BLOCKS", v.row_blocks},
                                  {"BF_WARPS", v.warps},
                                  {"BF_BLOCKS", v.blocks},
                                  {"BF_STAGES", v.stages},
                                  {"BF_STREAM_X", v.stream_x}});
  }
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
  for (const LinearDecodeVariant& variant : LinearDecodeVariants(layout, device.arch())) {
    const KernelSpec spec = LinearDecodeSpec(layout, variant, activation == DType::kF16, device.arch());
    BILLFISH_ASSIGN_OR_RETURN(LoadedKernel kernel, LoadKernel(spec, device));
    Loaded loaded{variant, std::move(kernel)};
    for (int s = 0; s <= (HasClusters(device.arch()) ? kMostSplitsLog2 : 0); ++s) {
      if (Steps(weight.form, variant) < int64_t{1} << s) continue;
      const int64_t least = std::min<int64_t>(device.info().sms >> s, Blocks(weight.form, variant));
      const int64_t shared = SharedBytes(weight.form, variant, s, std::max<int64_t>(least, 1), 1);
      if (shared > SharedOfBlock(device.arch(), variant.blocks)) continue;
      BILLFISH_ASSIGN_OR_RETURN(loaded.clusters[static_cast<size_t>(s)], ActiveClusters(device, loaded.kernel, variant, 1 << s, shared));
    }
    decode.loaded_.push_back(std::move(loaded));
  }
  BILLFISH_ASSIGN_OR_RETURN(decode.vector_, LinearVector::Create(device, weight));
  return decode;
}

LinearDecodePlan LinearDecode::PlanFor(int64_t M, bool x_aligned) const {
  const TileForm& form = weight_.form;
  LinearDecodePlan plan;
  double best = std::numeric_limits<double>::infinity();
  const int tokens = M <= 8 ? 8 : 16;
  for (size_t i = 0; i < loaded_.size(); ++i) {
    const LinearDecodeVariant& v = loaded_[i].variant;
    if (v.tokens != tokens || (v.wgmma && (!x_aligned || M < kLeastWgmmaRows))) continue;
    for (int s = 0; s <= kMostSplitsLog2; ++s) {
      if (loaded_[i].clusters[static_cast<size_t>(s)] == 0) continue;
      for (int per_sm = 1; per_sm <= v.blocks; ++per_sm) {
        const int64_t clusters = std::min<int64_t>(loaded_[i].clusters[static_cast<size_t>(s)] * per_sm / v.blocks, Blocks(form, v));
        // CTAs that leave room on their SMs let those of the next call begin beside them; where they leave some SMs empty, these get two.
        const int64_t ctas = clusters << s, sms = device_->info().sms;
        if (per_sm < v.blocks && ctas != sms) continue;
        if (SharedBytes(form, v, s, clusters, M) > SharedOfBlock(device_->arch(), v.blocks)) continue;
        const int64_t blocks = DivideUp(Blocks(form, v), clusters), slice = DivideUp(Steps(form, v), int64_t{1} << s);
        const double time =
            CallTime(form.layout, v, blocks, slice, s, DivideUp(ctas, sms), (v.wgmma ? v.tokens : M) * XRowBytes(form, v, s)) +
            (v.blocks > 1 && ctas < sms ? 1.0 : 0.0);
        if (time >= best) continue;
        best = time;
        plan = {i, s, static_cast<int>(clusters)};
      }
    }
  }
  return plan;
}

Status LinearDecode::Run(const void* x, int64_t x_stride, int64_t M, const TileOutput& y, CUstream stream) const {
  if (M == 1 && vector_ && vector_->Takes(x)) return vector_->Run(x, y, stream);
  BILLFISH_ASSIGN_OR_RETURN(const OutType out, OutTypeOf(y.dtype, "a decode kernel"));
  const TileForm& form = weight_.form;
  for (int64_t first = 0; first < M; first += RowsOfPass()) {
    const int64_t rows = std::min(M - first, RowsOfPass());
    const void* const x_pass = static_cast<const uint16_t*>(x) + first * x_stride;
    const bool x_aligned = reinterpret_cast<uintptr_t>(x_pass) % 16 == 0 && x_stride % 8 == 0;
    const LinearDecodePlan plan = PlanFor(rows, x_aligned);
    const Loaded& loaded = loaded_[plan.variant];
    LinearDecodeArgs args;
    args.weight = reinterpret_cast<const uint8_t*>(weight_.units);
    args.row_scale = weight_.row_scale;
    args.bias = weight_.bias;
    args.x = x_pass;
    args.y = static_cast<std::byte*>(y.data) + first * y.stride * DTypeBits(y.dtype) / 8;
    args.x_stride = x_stride;
    args.y_stride = y.stride;
    args.M = static_cast<int32_t>(rows);
    args.N = static_cast<int32_t>(form.N);
    args.K = static_cast<int32_t>(form.K);
    args.units = static_cast<int32_t>(form.units);
    const int64_t blocks = Blocks(form, loaded.variant);
    args.blocks = static_cast<int32_t>(blocks / plan.clusters);
    args.clusters_with_more = static_cast<int32_t>(blocks % plan.clusters);
    args.splits_log2 = plan.splits_log2;
    args.x_row_bytes = static_cast<int32_t>(XRowBytes(form, loaded.variant, plan.splits_log2));
    args.out = out;
    args.x_aligned = x_aligned ? 1 : 0;
    LaunchShape shape;
    shape.grid_x = static_cast<uint32_t>(plan.clusters) << plan.splits_log2;
    shape.threads = static_cast<uint32_t>(loaded.variant.warps * 32);
    shape.shared_bytes = static_cast<uint32_t>(SharedBytes(form, loaded.variant, plan.splits_log2, plan.clusters, rows));
    shape.cluster_x = 1U << plan.splits_log2;
    shape.dependent = HasClusters(device_->arch());
    TensorMap boxes;
    if (loaded.variant.wgmma) BILLFISH_RETURN_IF_ERROR(DescribeBoxes(x_pass, form.K, rows, x_stride, loaded.variant.tokens, boxes));
    std::array<void*, 2> parameters = {&args, &boxes};
    BILLFISH_RETURN_IF_ERROR(Launch(loaded.kernel, shape, stream, std::span(parameters).first(loaded.variant.wgmma ? 2 : 1)));
  }
  return OkStatus();
}

void AppendLinearDecodeSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  constexpr TileLayout kFp8{TileCodes::kE4M3, TileScale::kF32, 128}, kPlain{TileCodes::kBF16};
  for (const TileLayout& layout : {kInt4G128, kMxfp4, kNvfp4, kFp8, kPlain}) {
    for (const LinearDecodeVariant& v : LinearDecodeVariants(layout, arch)) specs.push_back(LinearDecodeSpec(layout, v, false, arch));
  }
  constexpr TileLayout kZeros{TileCodes::kInt4, TileScale::kF16, 128, true, false};
  for (const LinearDecodeVariant& v : LinearDecodeVariants(kZeros, arch)) specs.push_back(LinearDecodeSpec(kZeros, v, true, arch));
}

}  // namespace billfish::cuda
