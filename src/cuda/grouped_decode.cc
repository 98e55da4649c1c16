#include "cuda/grouped_decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/shipped_layouts.h"
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

// The deepest ring that leaves room for the wanted blocks; fewer blocks where not even a short ring would fit.
DecodeVariant Fit(const TileLayout& layout, Arch arch, DecodeVariant variant) {
  constexpr int kShortest = 3, kDeepest = 8, kReserved = 2048;  // the system's share and what a block sorts itself
  for (;; --variant.blocks) {
    const int room = arch.SharedBytesOfSm() / variant.blocks - kReserved - PartsBytes(variant);
    variant.stages = std::min(room / (variant.warps * StageBytes(layout, variant)), kDeepest);
    if (variant.stages >= kShortest || variant.blocks == 1) break;
  }
  variant.stages = std::max(variant.stages, 2);
  return variant;
}

constexpr int kPhaseItems = 32;  // whose sums may wait for the next phase of K, at most

// Sums of an item.
int ItemBytes(const StreamVariant& v) { return v.row_blocks * (v.rows / 8) * 512; }

// Dynamic shared memory of a CTA: what the system's and its static part leave.
int StreamRoom(Arch arch, const StreamVariant& v) { return (arch.SharedBytesOfSm() - 4608 - v.warps * ItemBytes(v)) / 16 * 16; }

int StreamRingBytes(const TileLayout& layout, const StreamVariant& v) {
  return v.warps * v.stages * GroupedStepUnits(layout, v.row_blocks) * layout.unit_bytes() * v.row_blocks / 4;
}

int StepsOfK(const TileForm& form, const StreamVariant& v) {
  return static_cast<int>(DivideUp(form.units, GroupedStepUnits(form.layout, v.row_blocks)));
}

// Of a row of x in shared memory: so many steps, and 16 bytes more, so that rows lie in different banks.
int RowBytes(const TileLayout& layout, const StreamVariant& v, int steps) {
  return steps * GroupedStepUnits(layout, v.row_blocks) * layout.unit_k() * 2 + 16;
}

// Rings take two thirds of the room at most, rows of x the rest. Half of the memory is enough on its way; the rest is better used for rows
// of x.
StreamVariant FitStream(const TileLayout& layout, Arch arch, StreamVariant v) {
  constexpr int kShortest = 2, kDeepest = 6;
  v.stages = 1;
  const int stage = StreamRingBytes(layout, v);
  v.stages = std::max(std::min({StreamRoom(arch, v) * 2 / 3 / stage, arch.SharedBytesOfSm() / 2 / stage, kDeepest}), kShortest);
  return v;
}

ActivationKind KindOf(const Activation* activation) {
  return activation == nullptr ? ActivationKind::kNone : static_cast<ActivationKind>(activation->kind);
}

}  // namespace

std::vector<StreamVariant> StreamVariants(const TileLayout& layout, Arch arch) {
  std::vector<StreamVariant> variants;
  for (const int rows : {8, 16}) {
    const size_t before = variants.size();
    for (const int row_blocks : {4, 2, 1}) {
      // Most work is done in large items; of few items smaller ones are more even. Sums of 16 rows take as many registers as those of 8
      // rows of twice as many weights. The smallest items are for layouts whose larger ones leave no room for a ring.
      if ((rows == 16 && row_blocks == 4) || (row_blocks == 1 && variants.size() > before)) continue;
      const StreamVariant variant = FitStream(layout, arch, {rows, row_blocks, 12, 0});
      if (row_blocks == 1 || variant.stages >= 3) variants.push_back(variant);
    }
  }
  return variants;
}

KernelSpec StreamSpec(const TileLayout& layout, Arch arch, const StreamVariant& variant, bool half, ActivationKind activation) {
  KernelSpec spec;
  spec.file = "w4a16_grouped_stream_sm80.cu";
  spec.function = "w4a16_grouped_stream";
  spec.defines = WeightDefines(layout, half,
                               {{"BF_ROWS", variant.rows},
                                {"BF_ROW_BLOCKS", variant.row_blocks},
                                {"BF_WARPS", variant.warps},
                                {"BF_STAGES", variant.stages},
                                {"BF_ACTIVATION", static_cast<int>(activation)}});
  spec.shared_bytes = static_cast<uint32_t>(StreamRoom(arch, variant));
  spec.hot = true;
  return spec;
}

std::vector<DecodeVariant> DecodeVariants(const TileLayout& layout, Arch arch) {
  // Units of 128 columns take more registers, with zero points or on sm_100 and up more still.
  const bool wide = layout.unit_k() == 128;
  const int most = wide && (arch.major >= 10 || layout.zeros) ? 3 : 4;
  return {Fit(layout, arch, {8, 1, 4, 0, most}), Fit(layout, arch, {8, 1, 8, 0, most / 2})};
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
  const TileLayout& layout = weight.form.layout;
  for (const StreamVariant& variant : StreamVariants(layout, device.arch())) {
    const KernelSpec spec = StreamSpec(layout, device.arch(), variant, x_dtype == DType::kF16, KindOf(activation));
    BILLFISH_ASSIGN_OR_RETURN(LoadedKernel kernel, LoadKernel(spec, device));
    const int room = StreamRoom(device.arch(), variant) - StreamRingBytes(layout, variant);
    decode.variants_.push_back({variant, std::move(kernel), room / RowBytes(layout, variant, StepsOfK(weight.form, variant))});
  }
  for (const DecodeVariant& variant : DecodeVariants(weight.form.layout, device.arch())) {
    const KernelSpec spec = DecodeSpec(weight.form.layout, variant, x_dtype == DType::kF16, KindOf(activation));
    BILLFISH_ASSIGN_OR_RETURN(LoadedKernel kernel, LoadKernel(spec, device));
    decode.few_.push_back({variant, std::move(kernel)});
  }
  return decode;
}

int GroupedDecode::TileRows(int64_t rows) const {
  // Experts with more rows than a tile are read again, from L2: few of them may have more than twice the mean.
  const int64_t mean = DivideUp(rows, weight_.form.E);
  for (const int wanted : {8, 16}) {
    if (5 * wanted < 8 * mean) continue;
    // Rather a few rows less than to go through K in phases.
    int most = 0;
    for (const LoadedStream& loaded : variants_) most = std::max(most, std::min({loaded.most_rows, loaded.variant.rows, wanted}));
    return 5 * most >= 8 * mean ? most : wanted;
  }
  return variants_.back().variant.rows;
}

bool GroupedDecode::Sorts(int64_t slots) const {
  return slots <= kBlockSortSlots && std::all_of(variants_.begin(), variants_.end(), [&](const LoadedStream& loaded) {
           const StreamVariant& v = loaded.variant;
           return BlockSortBytes(static_cast<int>(weight_.form.E), v.warps) <= StreamRingBytes(weight_.form.layout, v);
         });
}

// The variant with the least time, in row blocks of the SM with the most items.
const GroupedDecode::LoadedStream* GroupedDecode::Choose(const DecodeWork& work) const {
  const auto E = static_cast<double>(weight_.form.E), slots = static_cast<double>(work.slots);
  const double experts = E * (1 - std::pow(1 - 1 / E, slots));  // of a random routing
  const auto rows = static_cast<int>(std::min<int64_t>(work.tile_rows, work.slots));
  const LoadedStream* chosen = nullptr;
  double least = 0;
  for (const LoadedStream& loaded : variants_) {
    const StreamVariant& v = loaded.variant;
    if (v.rows < work.tile_rows) continue;
    const double items = experts * static_cast<double>(weight_.form.panels) * 4 / v.row_blocks;
    // Small items spread more evenly and start sooner; large ones cost less a byte.
    double cost = std::ceil(items / device_->info().sms) * v.row_blocks;
    cost = v.row_blocks == 1 ? 1.4 * cost : v.row_blocks == 2 ? 1.05 * cost + 12 : cost + 13;
    if (v.rows > 8) cost *= 1.1;
    if (loaded.most_rows < rows) cost *= 1.05;
    if (chosen == nullptr || cost < least) chosen = &loaded, least = cost;
  }
  return chosen;
}

// The variant with more warps a block where the items would leave multiprocessors idle and K is long enough to share out.
const GroupedDecode::Loaded& GroupedDecode::ChooseFew(const DecodeWork& work) const {
  const Loaded* chosen = &few_.front();
  for (const Loaded& loaded : few_) {
    const DecodeVariant& v = loaded.variant;
    const int64_t items = MostTiles(work.slots, weight_.form.E, work.tile_rows) * DivideUp(weight_.form.panels, v.panels);
    if (items <= 2 * device_->info().sms && weight_.form.units >= 3 * v.warps) chosen = &loaded;
  }
  return *chosen;
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
  args.N = static_cast<int32_t>(activated_ ? std::min(RoundUp(columns, 8), out_stride) : columns);
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
  args.tile_rows = work.tile_rows;
  args.gather = work.gather ? 1 : 0;
  args.early_weights = work.overlapped ? 1 : 0;
  args.activation = parameters_;
  return args;
}

Status GroupedDecode::LaunchStream(GroupedDecodeArgs args, const DecodeWork& work, CUstream stream) const {
  const LoadedStream* loaded = Choose(work);
  if (loaded == nullptr) {
    return {ErrorCode::kInvalidArgument, fmt::format("grouped decode got tiles of {} rows; it has kernels for at most {}", work.tile_rows,
                                                     variants_.back().variant.rows)};
  }
  const StreamVariant& v = loaded->variant;
  const TileForm& form = weight_.form;
  const int ring = StreamRingBytes(form.layout, v), room = StreamRoom(device_->arch(), v) - ring;
  const auto needed = static_cast<int>(std::min<int64_t>(work.tile_rows, work.slots));
  const int steps = StepsOfK(form, v);
  const int64_t tiles = MostTiles(work.slots, form.E, work.tile_rows), items = tiles * form.panels * 4 / v.row_blocks;
  const int64_t ctas = std::max(std::clamp<int64_t>(items, 1, device_->info().sms), DivideUp(tiles, int64_t{kMostStreamTiles - 2}));
  // Sums of an item wait for the next phase of K: better those of all items of a CTA, with fewer columns of x at a time.
  const int64_t all_items = std::min(DivideUp(items, ctas), int64_t{kPhaseItems});
  const int most_waiting = static_cast<int>(std::clamp<int64_t>(room / 3 / ItemBytes(v), 1, all_items)) * ItemBytes(v);
  int waiting = 0;
  args.phase_steps = steps;
  args.x_row_bytes = RowBytes(form.layout, v, steps);
  for (int phases = 2; needed * args.x_row_bytes + waiting > room && args.phase_steps > 1; ++phases) {
    args.phase_steps = static_cast<int32_t>(DivideUp(steps, phases));
    args.x_row_bytes = RowBytes(form.layout, v, args.phase_steps);
    waiting = most_waiting;
  }
  args.x_rows = static_cast<int32_t>(std::min<int64_t>((room - waiting) / args.x_row_bytes, work.slots));
  args.round_items = waiting > 0 ? waiting / ItemBytes(v) : INT32_MAX / 2;
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(ctas);
  shape.threads = static_cast<uint32_t>(v.warps * 32);
  shape.shared_bytes = static_cast<uint32_t>(ring + args.x_rows * args.x_row_bytes + waiting);
  shape.dependent = device_->arch().major >= 9;
  std::array<void*, 1> parameters = {&args};
  return Launch(loaded->kernel, shape, stream, parameters);
}

Status GroupedDecode::LaunchFew(GroupedDecodeArgs args, const DecodeWork& work, CUstream stream) const {
  const Loaded& loaded = ChooseFew(work);
  const DecodeVariant& variant = loaded.variant;
  const TileForm& form = weight_.form;
  const int64_t items = MostTiles(work.slots, form.E, work.tile_rows) * DivideUp(form.panels, variant.panels);
  const int64_t resident = int64_t{device_->info().sms} * variant.blocks;
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(std::clamp<int64_t>(items, 1, resident));
  shape.threads = static_cast<uint32_t>(variant.warps * 32);
  shape.shared_bytes = static_cast<uint32_t>(RingBytes(form.layout, variant));
  shape.dependent = device_->arch().major >= 9;
  std::array<void*, 1> parameters = {&args};
  return Launch(loaded.kernel, shape, stream, parameters);
}

Status GroupedDecode::Run(const DecodeWork& work, const void* x, int64_t x_stride, void* out, int64_t out_stride, CUstream stream) const {
  return LaunchStream(Arguments(work, x, x_stride, out, out_stride), work, stream);
}

Status GroupedDecode::RunGateUp(const DecodeWork& work, const void* x, int64_t x_stride, void* h, int64_t h_stride, int32_t* arrivals,
                                int64_t count, CUstream stream) const {
  GroupedDecodeArgs args = Arguments(work, x, x_stride, h, h_stride);
  args.arrivals = arrivals;
  args.arrival_count = static_cast<int32_t>(count);
  return LaunchFew(args, work, stream);
}

Status GroupedDecode::RunDown(const DecodeWork& work, const void* h, int64_t h_stride, void* out, int64_t out_stride,
                              const DecodeCombine& combine, CUstream stream) const {
  GroupedDecodeArgs args = Arguments(work, h, h_stride, out, out_stride);
  args.arrivals = combine.arrivals;
  args.weights = combine.weights;
  args.addend = combine.addend;
  args.y = combine.y;
  args.y_stride = combine.y_stride;
  args.y_type = combine.y_type;
  return LaunchFew(args, work, stream);
}

void AppendGroupedDecodeSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  // The sizes of decoding.
  for (const TileLayout& layout : kShippedLayouts) {
    for (const StreamVariant& variant : StreamVariants(layout, arch)) {
      const bool common = variant.rows == 8;
      if (!common && !(layout.scale == TileScale::kE8M0 && arch.major == 9)) continue;
      for (const ActivationKind activation : {ActivationKind::kNone, ActivationKind::kSwiglu}) {
        specs.push_back(StreamSpec(layout, arch, variant, false, activation));
      }
    }
    for (const DecodeVariant& variant : DecodeVariants(layout, arch)) {
      const bool common = variant.warps == 4;
      if (!common && !(layout.scale == TileScale::kE8M0 && arch.major == 9)) continue;
      for (const ActivationKind activation : {ActivationKind::kNone, ActivationKind::kSwiglu}) {
        specs.push_back(DecodeSpec(layout, variant, false, activation));
      }
    }
  }
}

}  // namespace billfish::cuda
