#include "cuda/grouped_decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/status_macros.h"
#include "cuda/weight_defines.h"

namespace billfish::cuda {
namespace {

int StageBytes(const TileLayout& layout, const DecodeVariant& variant) {
  return variant.panels * layout.unit_bytes() + variant.rows * layout.unit_k() * 2;
}

// Where the warps of a block add up.
int PartsBytes(const DecodeVariant& variant) { return variant.warps * 4 * 32 * 16; }

// Dynamic shared memory of a block.
int RingBytes(const TileLayout& layout, const DecodeVariant& variant) {
  return variant.warps * variant.stages * StageBytes(layout, variant);
}

// Shared memory of an SM (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
int SharedOfSm(Arch arch) {
  if (arch.major == 9 || arch.major == 10) return 228 << 10;
  if (arch == Arch{8, 0}) return 164 << 10;
  return 100 << 10;
}

// Dynamic shared memory of a block of the kernel for one token: its rows of h.
int TokenRoom(Arch arch, const TokenVariant& variant) { return std::min(SharedOfSm(arch) / variant.blocks - (12 << 10), 96 << 10); }

// The deepest ring that leaves room for the wanted blocks; fewer blocks where not even a short ring would fit.
DecodeVariant Fit(const TileLayout& layout, Arch arch, DecodeVariant variant) {
  constexpr int kShortest = 3, kDeepest = 8, kReserved = 2048;  // the system's share and what a block sorts itself
  for (;; --variant.blocks) {
    const int room = SharedOfSm(arch) / variant.blocks - kReserved - PartsBytes(variant);
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
  // Units of 128 columns take more registers, with zero points or on sm_100 and up more still.
  const bool wide = layout.unit_k() == 128;
  const int most = wide && (arch.major >= 10 || layout.zeros) ? 3 : 4;
  return {Fit(layout, arch, {8, 1, 4, 0, most}), Fit(layout, arch, {8, 1, 8, 0, most / 2}), Fit(layout, arch, {16, 1, 4, 0, wide ? 2 : 3})};
}

KernelSpec DecodeSpec(const TileLayout& layout, const DecodeVariant& variant, bool half, ActivationKind activation) {
  KernelSpec spec;
  spec.file = "w4a16_grouped_decode_sm80.cu";
  spec.function = "w4a16_grouped_decode";
  spec.defines = WeightDefines(layout, half,
                               {{"BF_ROWS", variant.rows},
                                {"BF_PANELS", variant.panels},
                                {"BF_WARPS", variant.warps},
                                {"BF_STAGES", variant.stages},
                                {"BF_BLOCKS", variant.blocks},
                                {"BF_ACTIVATION", static_cast<int>(activation)}});
  spec.shared_bytes = static_cast<uint32_t>(RingBytes(layout, variant));
  spec.hot = true;
  return spec;
}

TokenVariant TokenVariantOf(const TileLayout& layout) { return {16, std::max(16 * 512 / layout.code_bytes(), 1), 1}; }

KernelSpec TokenSpec(const TileLayout& layout, Arch arch, bool half) {
  const TokenVariant variant = TokenVariantOf(layout);
  KernelSpec spec;
  spec.file = "w4a16_token_down_sm80.cu";
  spec.function = "w4a16_token_down";
  spec.defines = WeightDefines(layout, half, {{"BF_WARPS", variant.warps}, {"BF_AHEAD", variant.ahead}, {"BF_BLOCKS", variant.blocks}});
  spec.shared_bytes = static_cast<uint32_t>(TokenRoom(arch, variant));
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
  if (activation == nullptr) {
    decode.token_variant_ = TokenVariantOf(weight.form.layout);
    BILLFISH_ASSIGN_OR_RETURN(decode.token_kernel_,
                              LoadKernel(TokenSpec(weight.form.layout, device.arch(), x_dtype == DType::kF16), device));
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

// The fewest rows that hold a tile; of these the variant with more warps a block where the items would leave multiprocessors idle and K
// is long enough to share out.
const GroupedDecode::Loaded* GroupedDecode::Choose(const DecodeWork& work) const {
  const Loaded* chosen = nullptr;
  for (const Loaded& loaded : variants_) {
    const DecodeVariant& v = loaded.variant;
    if (v.rows < work.tile_rows) continue;
    if (chosen == nullptr) {
      chosen = &loaded;
      continue;
    }
    if (v.rows != chosen->variant.rows) break;
    const int64_t items = MostTiles(work.slots, weight_.form.E, v.rows) * ((weight_.form.panels + v.panels - 1) / v.panels);
    if (items <= 2 * device_->info().sms && weight_.form.units >= 3 * v.warps) chosen = &loaded;
  }
  return chosen;
}

GroupedDecodeArgs GroupedDecode::Arguments(const DecodeWork& work, const void* x, int64_t x_stride, void* out, int64_t out_stride) const {
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
  args.slots = static_cast<int32_t>(work.slots);
  args.top_k = static_cast<int32_t>(work.top_k);
  args.first_expert = static_cast<int32_t>(work.first_expert);
  args.E = static_cast<int32_t>(form.E);
  args.gather = work.gather ? 1 : 0;
  args.early_weights = work.overlapped ? 1 : 0;
  args.activation = parameters_;
  return args;
}

Status GroupedDecode::LaunchOn(const GroupedDecodeArgs& args, const DecodeWork& work, CUstream stream) const {
  const Loaded* loaded = Choose(work);
  if (loaded == nullptr) {
    return {ErrorCode::kInvalidArgument, fmt::format("grouped decode got tiles of {} rows; it has kernels for at most {}", work.tile_rows,
                                                     variants_.back().variant.rows)};
  }
  const DecodeVariant& variant = loaded->variant;
  const TileForm& form = weight_.form;
  const int64_t items = MostTiles(work.slots, form.E, variant.rows) * ((form.panels + variant.panels - 1) / variant.panels);
  const int64_t resident = static_cast<int64_t>(device_->info().sms) * variant.blocks;
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(std::clamp<int64_t>(items, 1, resident));
  shape.threads = static_cast<uint32_t>(variant.warps * 32);
  shape.shared_bytes = static_cast<uint32_t>(RingBytes(form.layout, variant));
  shape.dependent = device_->arch().major >= 9;
  GroupedDecodeArgs copy = args;
  std::array<void*, 1> parameters = {&copy};
  return Launch(loaded->kernel, shape, stream, parameters);
}

Status GroupedDecode::LaunchToken(const GroupedDecodeArgs& args, uint32_t shared_bytes, CUstream stream) const {
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(args.panels * 4);
  shape.threads = static_cast<uint32_t>(token_variant_.warps * 32);
  shape.shared_bytes = shared_bytes;
  shape.dependent = device_->arch().major >= 9;
  GroupedDecodeArgs copy = args;
  std::array<void*, 1> parameters = {&copy};
  return Launch(token_kernel_, shape, stream, parameters);
}

Status GroupedDecode::Run(const DecodeWork& work, const void* x, int64_t x_stride, void* out, int64_t out_stride, CUstream stream) const {
  return LaunchOn(Arguments(work, x, x_stride, out, out_stride), work, stream);
}

Status GroupedDecode::RunGateUp(const DecodeWork& work, const void* x, int64_t x_stride, void* h, int64_t h_stride, int32_t* arrivals,
                                int64_t count, CUstream stream) const {
  GroupedDecodeArgs args = Arguments(work, x, x_stride, h, h_stride);
  args.arrivals = arrivals;
  args.arrival_count = static_cast<int32_t>(count);
  return LaunchOn(args, work, stream);
}

Status GroupedDecode::RunDown(const DecodeWork& work, const void* h, int64_t h_stride, void* out, int64_t out_stride,
                              const DecodeCombine& combine, CUstream stream) const {
  GroupedDecodeArgs args = Arguments(work, h, h_stride, out, out_stride);
  args.arrivals = combine.arrivals;
  args.weights = combine.weights;
  args.addend = combine.addend;
  args.y = combine.y;
  args.y_stride = combine.y_stride;
  args.y_type = combine.y_dtype == DType::kF32 ? 0 : combine.y_dtype == DType::kBF16 ? 1 : 2;
  args.x_units = static_cast<int32_t>((work.slots * weight_.form.units + token_variant_.warps - 1) / token_variant_.warps);
  const int64_t rows = int64_t{args.x_units} * token_variant_.warps * weight_.form.layout.unit_k() * 2;
  // Where every block has 16 rows of y at most; longer streams are better off in the rings of the other kernel.
  const bool few = int64_t{args.panels} * 4 <= int64_t{device_->info().sms} * token_variant_.blocks;
  if (work.slots == work.top_k && few && args.x_aligned != 0 && rows <= TokenRoom(device_->arch(), token_variant_)) {
    return LaunchToken(args, static_cast<uint32_t>(rows), stream);
  }
  return LaunchOn(args, work, stream);
}

void AppendGroupedDecodeSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  // The layouts that models ship with, for the sizes of decoding; everything else is compiled when a model first needs it.
  constexpr TileLayout kMxfp4{TileCodes::kE2M1, TileScale::kE8M0, 32, false, false};
  constexpr TileLayout kNvfp4{TileCodes::kE2M1, TileScale::kE4M3, 16, false, false};
  constexpr TileLayout kInt4{TileCodes::kInt4, TileScale::kBF16, 128, false, false};
  for (const TileLayout& layout : {kMxfp4, kNvfp4, kInt4}) {
    for (const DecodeVariant& variant : DecodeVariants(layout, arch)) {
      const bool common = variant.rows == 8 && variant.warps == 4;
      if (!common && !(layout.scale == TileScale::kE8M0 && arch.major == 9)) continue;
      for (const ActivationKind activation : {ActivationKind::kNone, ActivationKind::kSwiglu}) {
        specs.push_back(DecodeSpec(layout, variant, false, activation));
      }
    }
    specs.push_back(TokenSpec(layout, arch, false));
  }
}

}  // namespace billfish::cuda
