#include "cuda/grouped_decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/status_macros.h"

namespace billfish::cuda {
namespace {

int StageBytes(const TileLayout& layout, const DecodeVariant& variant) {
  return variant.panels * layout.unit_bytes() + variant.rows * layout.unit_k() * 2;
}

// The sums of the warps, and the list that a block sorts itself.
int StaticBytes(const DecodeVariant& variant) { return variant.warps * 4 * variant.panels * (variant.rows / 8) * 32 * 16 + 1024; }

// Shared memory of an SM (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
int SharedOfSm(Arch arch) {
  if (arch.major == 9 || arch.major == 10) return 228 << 10;
  if (arch == Arch{8, 0}) return 164 << 10;
  return 100 << 10;
}

// The deepest ring that leaves room for the wanted blocks; fewer blocks where not even a short ring would fit.
DecodeVariant Fit(const TileLayout& layout, Arch arch, DecodeVariant variant) {
  constexpr int kShortest = 3, kDeepest = 8, kReserved = 1024;
  for (;; --variant.blocks) {
    const int room = SharedOfSm(arch) / variant.blocks - kReserved - StaticBytes(variant);
    variant.stages = std::min(room / (variant.warps * StageBytes(layout, variant)), kDeepest);
    if (variant.stages >= kShortest || variant.blocks == 1) break;
  }
  variant.stages = std::max(variant.stages, 2);
  return variant;
}

ActivationKind KindOf(const Activation* activation) {
  return activation == nullptr ? ActivationKind::kNone : static_cast<ActivationKind>(activation->kind);
}

}  // namespace

std::vector<DecodeVariant> DecodeVariants(const TileLayout& layout, Arch arch) {
  return {Fit(layout, arch, {8, 1, 4, 0, 4}), Fit(layout, arch, {16, 1, 4, 0, 3})};
}

KernelSpec DecodeSpec(const TileLayout& layout, const DecodeVariant& variant, bool half, ActivationKind activation) {
  const auto number = [](auto v) { return std::to_string(static_cast<int>(v)); };
  KernelSpec spec;
  spec.file = "w4a16_grouped_decode_sm80.cu";
  spec.function = "w4a16_grouped_decode";
  spec.defines = {{"BF_CODES", number(layout.codes)},    {"BF_SCALE", number(layout.scale)},      {"BF_GROUP", number(layout.group)},
                  {"BF_ZEROS", number(layout.zeros)},    {"BF_WIDE", number(layout.wide_scales)}, {"BF_ACT", number(half)},
                  {"BF_ROWS", number(variant.rows)},     {"BF_PANELS", number(variant.panels)},   {"BF_WARPS", number(variant.warps)},
                  {"BF_STAGES", number(variant.stages)}, {"BF_BLOCKS", number(variant.blocks)},   {"BF_ACTIVATION", number(activation)}};
  spec.shared_bytes = static_cast<uint32_t>(variant.warps * variant.stages * StageBytes(layout, variant));
  spec.hot = true;
  return spec;
}

Result<GroupedDecode> GroupedDecode::Create(const GpuDevice& device, const TileView& weight, DType x_dtype, const Activation* activation) {
  BILLFISH_RETURN_IF_ERROR(CheckActivation(weight.form.layout, x_dtype));
  const bool gated = activation != nullptr && activation->gated();
  if (gated != (weight.form.order != RowOrder::kPlain)) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("a grouped linear with {} got rows that are {}; pack gate and up in a gate-up order for a gated activation and "
                    "nothing else",
                    gated ? "a gated activation" : "no gated activation", gated ? "plain" : "paired as gate and up"));
  }
  GroupedDecode decode;
  decode.device_ = &device;
  decode.weight_ = weight;
  decode.gated_ = gated;
  decode.activated_ = activation != nullptr;
  if (activation != nullptr) decode.parameters_ = {activation->limit, activation->alpha, activation->beta};
  for (const DecodeVariant& variant : DecodeVariants(weight.form.layout, device.arch())) {
    const KernelSpec spec = DecodeSpec(weight.form.layout, variant, x_dtype == DType::kF16, KindOf(activation));
    BILLFISH_ASSIGN_OR_RETURN(LoadedKernel kernel, LoadKernel(spec, device));
    decode.variants_.push_back({variant, std::move(kernel)});
  }
  return decode;
}

int GroupedDecode::TileRows(int64_t rows) const {
  // Experts with more rows than a tile are read again, from L2: few of them may have more than twice the mean.
  const int64_t mean = (rows + weight_.form.E - 1) / weight_.form.E;
  for (const Loaded& loaded : variants_) {
    if (5 * loaded.variant.rows >= 8 * mean) return loaded.variant.rows;
  }
  return variants_.back().variant.rows;
}

Status GroupedDecode::Run(const DecodeWork& work, const void* x, int64_t x_stride, void* out, int64_t out_stride, CUstream stream) const {
  const auto found = std::find_if(variants_.begin(), variants_.end(), [&](const Loaded& v) { return v.variant.rows >= work.tile_rows; });
  if (found == variants_.end()) {
    return {ErrorCode::kInvalidArgument, fmt::format("grouped decode got tiles of {} rows; it has kernels for at most {}", work.tile_rows,
                                                     variants_.back().variant.rows)};
  }
  const DecodeVariant& variant = found->variant;
  const TileForm& form = weight_.form;
  GroupedDecodeArgs args;
  args.weight = reinterpret_cast<const uint8_t*>(weight_.units);
  args.row_scale = weight_.row_scale;
  args.bias = weight_.bias;
  args.x = x;
  args.out = out;
  args.x_stride = x_stride;
  args.out_stride = out_stride;
  args.expert_bytes = static_cast<int64_t>(form.expert_bytes());
  const int64_t columns = gated_ ? form.N / 2 : form.N;
  args.N = static_cast<int32_t>(activated_ ? std::min((columns + 7) / 8 * 8, out_stride) : columns);
  args.K = static_cast<int32_t>(form.K);
  args.panels = static_cast<int32_t>(form.panels);
  args.units = static_cast<int32_t>(form.units);
  args.x_aligned = reinterpret_cast<uintptr_t>(x) % 16 == 0 && x_stride % 8 == 0 && (form.K % 8 == 0 || work.x_padded) ? 1 : 0;
  args.work = work.work;
  args.work_count = work.work_count;
  args.source = work.source;
  args.ids = work.ids;
  args.position = work.position;
  args.slots = static_cast<int32_t>(work.slots);
  args.top_k = static_cast<int32_t>(work.top_k);
  args.first_expert = static_cast<int32_t>(work.first_expert);
  args.E = static_cast<int32_t>(form.E);
  args.gather = work.gather ? 1 : 0;
  args.early_weights = work.overlapped ? 1 : 0;
  args.activation = parameters_;

  const int64_t items = MostTiles(work.slots, form.E, variant.rows) * ((form.panels + variant.panels - 1) / variant.panels);
  const int64_t resident = static_cast<int64_t>(device_->info().sms) * variant.blocks;
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(std::clamp<int64_t>(items, 1, resident));
  shape.threads = static_cast<uint32_t>(variant.warps * 32);
  shape.shared_bytes = static_cast<uint32_t>(variant.warps * variant.stages * StageBytes(form.layout, variant));
  shape.dependent = device_->arch().major >= 9;
  std::array<void*, 1> parameters = {&args};
  return Launch(found->kernel, shape, stream, parameters);
}

void AppendGroupedDecodeSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  // The layouts that models ship with; the others are compiled when first used.
  constexpr std::array<TileLayout, 3> kLayouts = {{{TileCodes::kE2M1, TileScale::kE8M0, 32, false, false},
                                                   {TileCodes::kE2M1, TileScale::kE4M3, 16, false, false},
                                                   {TileCodes::kInt4, TileScale::kBF16, 128, false, false}}};
  for (const TileLayout& layout : kLayouts) {
    for (const DecodeVariant& variant : DecodeVariants(layout, arch)) {
      for (const ActivationKind activation : {ActivationKind::kNone, ActivationKind::kSwiglu}) {
        specs.push_back(DecodeSpec(layout, variant, false, activation));
      }
    }
  }
}

}  // namespace billfish::cuda
