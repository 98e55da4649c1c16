#include "cuda/linear_tile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>

#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/driver.h"
#include "cuda/shipped_layouts.h"
#include "cuda/tensor_boxes.h"
#include "cuda/weight_defines.h"

namespace billfish::cuda {
namespace {

constexpr int64_t kBandRows = 2048;                // of x: 16 MB at K = 4096, which stays in every L2
constexpr std::array<int, 3> kSplits = {1, 2, 3};  // three gain nothing over two with wgmma, four nothing over three without

// What a block may take if so many share an SM: each costs 1 KB of the system's, and the kernels' rows of x up to another.
uint32_t MostSharedBytes(Arch arch, int ctas) { return static_cast<uint32_t>(arch.SharedBytesOfSm() / ctas - 2 * 1024); }

// Stages in shared memory, and what follows them there.
struct TileRing {
  int stages = 0;  // 0: too few would fit
  int stage_bytes = 0;
  uint32_t shared_bytes = 0;
};

// Of a launch with tiles of `panels` panels, K split into `splits` parts.
TileRing RingOf(const TileLayout& layout, const TileVariant& v, int panels, int splits, Arch arch) {
  TileRing ring;
  ring.stage_bytes = v.tokens() * v.units * layout.unit_k() * 2 + RoundUp(panels * v.units * layout.unit_bytes(), 1024);
  const auto stage = static_cast<uint32_t>(ring.stage_bytes), most = MostSharedBytes(arch, v.ctas_per_sm);
  // Of each pair of n8 tiles that a block stores: what the others of the cluster have summed.
  const int pairs = DivideUp(v.n8 / 2, splits) * (splits - 1);
  const auto sums = static_cast<uint32_t>(pairs * 2 * panels * kTileThreads * v.warps_n * 16);
  if (!v.wgmma) {
    ring.shared_bytes = std::max(static_cast<uint32_t>(v.stages) * stage, sums);
    if (ring.shared_bytes <= most) ring.stages = v.stages;
  } else if (sums + 3 * stage <= most) {
    // Sums may come while stages are still being read: there is no barrier of the cluster.
    ring.stages = static_cast<int>(std::min(static_cast<uint32_t>(v.stages), (most - sums) / stage));
    ring.shared_bytes = static_cast<uint32_t>(ring.stages) * stage + sums;
  }
  return ring;
}

bool ScalesAccumulator(const TileLayout& layout) { return layout.scale_size() >= 2; }

bool Aligned16(const void* data, int64_t stride, int64_t size) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * size % 16 == 0;
}

ActivationKind KindOf(const Activation* activation) {
  return activation == nullptr ? ActivationKind::kNone : static_cast<ActivationKind>(activation->kind);
}

// The fields that a launch takes from the weight and from where its rows are.
Result<LinearTileArgs> ArgsOf(const TileView& weight, bool gated, const void* x, int64_t x_stride, const TileOutput& y) {
  LinearTileArgs args;
  BILLFISH_ASSIGN_OR_RETURN(args.out, OutTypeOf(y.dtype, "a tile kernel"));
  const TileForm& form = weight.form;
  args.weight = reinterpret_cast<const uint8_t*>(weight.units);
  args.row_scale = weight.row_scale;
  args.bias = weight.bias;
  args.x = x;
  args.x_stride = x_stride;
  args.y = y.data;
  args.y_stride = y.stride;
  args.expert_bytes = static_cast<int64_t>(form.expert_bytes());
  args.N = static_cast<int32_t>(gated ? form.N / 2 : form.N);
  args.K = static_cast<int32_t>(form.K);
  args.panels = static_cast<int32_t>(form.panels);
  args.units = static_cast<int32_t>(form.units);
  args.x_aligned = Aligned16(x, x_stride, 2);
  args.y_aligned = Aligned16(y.data, y.stride, DTypeBits(y.dtype) / 8);
  return args;
}

struct Choice {
  size_t variant = 0;
  int panels = 0;  ///< of a tile
  int splits = 1;
};

// Cycles of a block of a tile kernel for one tile, `sharing` of them on an SM. Constants fitted to an H200 (nvfp4 and int4, 16 to 4096
// rows).
double TileCycles(const TileForm& form, const TileVariant& v, int panels, int splits, double sharing) {
  const TileLayout& layout = form.layout;
  const auto units = static_cast<double>(DivideUp(form.units, splits));
  const double k16 = layout.unit_k() / 16.0;
  if (v.wgmma) {
    // For 64 rows and 16 columns the tensor cores take tokens / 2 cycles and hide most of the decoding; a warpgroup alone hides little.
    const double tensor = v.tokens() / 2.0, decode = layout.code_bits() == 16 ? 4 : 22;
    const double step = std::max(panels * std::max(decode + 0.55 * tensor, 1.03 * tensor),
                                 static_cast<double>(DivideUp(panels, v.warps_m / 4)) * (56 + tensor));
    // x and weight from L2, 25 bytes a cycle.
    const double copied = (v.tokens() * 32.0 + panels * layout.unit_bytes() / k16) / 25;
    return units * k16 * std::max(step, copied) + 9000 + (splits > 1 ? 2000 : 0);
  }
  // MMAs and everything else take turns at issue.
  const double decode = layout.code_bits() == 16 ? 0 : layout.codes == TileCodes::kE2M1 ? 19 : layout.code_bits() == 8 ? 20 : 11;
  const double scale = ScalesAccumulator(layout) ? 4.0 * v.m16 * v.n8 * 16 / layout.group : 0;
  const double warp = 9.0 * v.m16 * v.n8 + 1.3 * (v.m16 * (decode + 2) + v.n8 + scale);
  // Blocks that share an SM take turns, but hide each other's latency.
  const double slower = sharing > 1 ? 0.82 * sharing : 1;
  return slower * units * k16 * std::max(warp * v.threads() / 128.0, 200.0) + 1500 + (splits > 1 ? 5000 : 0);
}

// Blocks that run at once as clusters of `splits`. A cluster lies in one part of the chip; parts are multiples of two SMs, not of three.
int64_t BlocksAtOnce(const CudaDeviceInfo& gpu, const TileVariant& v, int splits) {
  const int64_t sms = splits == 1 ? gpu.sms : splits == 2 ? gpu.sms / 2 * 2 : gpu.sms * 88 / 100;
  return sms * v.ctas_per_sm;
}

// The variant, tile and split with the least estimated time. Depends on shapes and device only.
Choice Choose(const std::vector<TileVariant>& variants, const TileForm& form, int64_t M, const GpuDevice& device) {
  const CudaDeviceInfo& gpu = device.info();
  Choice best;
  double best_time = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < variants.size(); ++i) {
    const TileVariant& v = variants[i];
    for (int panels = v.wgmma ? 1 : v.panels(); panels <= v.panels(); ++panels) {
      const int64_t tiles = DivideUp(form.panels, panels) * DivideUp(M, v.tokens());
      for (const int splits : kSplits) {
        if (splits > 1 && (gpu.major < 9 || form.units < 4 * splits * v.units)) continue;
        if (splits > 2 && v.wgmma) continue;
        if (RingOf(form.layout, v, panels, splits, device.arch()).stages == 0) continue;
        const auto waves = static_cast<double>(DivideUp(tiles * splits, BlocksAtOnce(gpu, v, splits)));
        const auto sharing = static_cast<double>(std::min<int64_t>(v.ctas_per_sm, DivideUp(tiles * splits, gpu.sms)));
        const double time = waves * TileCycles(form, v, panels, splits, sharing);
        if (time < best_time) best_time = time, best = {i, panels, splits};
      }
    }
  }
  return best;
}

}  // namespace

Result<OutType> OutTypeOf(DType dtype, const char* kernel) {
  switch (dtype) {
    case DType::kF32:
      return OutType::kF32;
    case DType::kBF16:
      return OutType::kBF16;
    case DType::kF16:
      return OutType::kF16;
    default:
      return Status(ErrorCode::kUnsupported,
                    fmt::format("{} was asked for {} output; it writes F32, BF16 or F16", kernel, DTypeName(dtype)));
  }
}

std::vector<TileVariant> TileVariants(const TileLayout& layout, Arch arch, bool grouped, TileCores cores) {
  // Two accumulator sets leave no room for 64 x 64 a warp.
  std::vector<TileVariant> variants;
  if (cores == TileCores::kBest && arch == Arch{9, 0}) {
    // Two units of 64 columns halve what the turn of a stage costs.
    const int units = layout.unit_k() == 64 && layout.code_bits() < 16 ? 2 : 1;
    TileVariant widest{2, 16, 8, 1, 8, 1, true, ScalesAccumulator(layout) ? 1 : units};
    // E2M1 with scales takes the most instructions to decode: four warpgroups hide more of them than two.
    if (layout.codes == TileCodes::kE2M1 && !ScalesAccumulator(layout)) widest = {1, 16, 16, 1, 8, 1, true, units};
    // FP8 blocks of 128: two accumulator sets and 256 x 128 spill.
    if (layout.code_bits() == 8 && ScalesAccumulator(layout)) widest = {1, 16, 8, 1, 8, 1, true, units};
    if (grouped) {
      variants = {widest};
    } else {
      // Up to 64 tokens, 512 rows: x is read from L2 by few tiles. Two accumulator sets leave room for 256, and so does shared memory
      // where codes are wide.
      const int rows = layout.code_bits() == 16 ? 1 : 2, rows_of_64 = ScalesAccumulator(layout) ? 1 : rows;
      variants = {
          {rows, 2, 16, 1, 8, 1, true, units}, {rows, 4, 16, 1, 8, 1, true, units}, {rows_of_64, 8, 16, 1, 8, 1, true, units}, widest};
    }
  } else if (ScalesAccumulator(layout) && layout.code_bits() == 8) {
    variants = {{1, 4, 8, 1, 4, 2}, {2, 4, 4, 2, 4, 1}, {2, 8, 4, 2, 4, 1}};
  } else if (ScalesAccumulator(layout)) {
    variants = {{1, 4, 8, 1, 4, 2}, {2, 8, 8, 1, 4, 1}, {2, 8, 4, 2, 4, 1}};
  } else {
    variants = {{1, 4, 8, 1, 4, 2}, {2, 4, 4, 2, 4, 2}, {4, 8, 4, 2, 4, 1}};
  }
  for (TileVariant& v : variants) {
    // As many stages as fit; fewer blocks where too few would. With wgmma a launch says how many it uses.
    for (const int stages = v.stages; RingOf(layout, v, v.panels(), 1, arch).stages == 0;) {
      if (v.stages > 2) {
        --v.stages;
      } else if (v.ctas_per_sm > 1) {
        --v.ctas_per_sm, v.stages = stages;
      } else {
        break;  // no layout gets here
      }
    }
  }
  return variants;
}

KernelSpec TileSpec(const TileLayout& layout, const TileVariant& v, bool half, bool grouped, ActivationKind activation, Arch arch) {
  KernelSpec spec;
  spec.function = !v.wgmma ? "w4a16_linear_tile_sm80" : grouped ? "w4a16_grouped_tile_sm90a" : "w4a16_linear_tile_sm90a";
  spec.file = spec.function + ".cu";
  spec.defines = WeightDefines(layout, half,
                               {{"BF_M16", v.m16},
                                {"BF_N8", v.n8},
                                {"BF_WARPS_M", v.warps_m},
                                {"BF_WARPS_N", v.warps_n},
                                {"BF_UNITS", v.units},
                                {"BF_STAGES", v.stages},
                                {"BF_MIN_CTAS", v.ctas_per_sm},
                                {"BF_GROUPED", grouped},
                                {"BF_ACTIVATION", static_cast<int>(activation)}});
  spec.shared_bytes =
      !grouped && arch.major >= 9 ? MostSharedBytes(arch, v.ctas_per_sm) : RingOf(layout, v, v.panels(), 1, arch).shared_bytes;
  spec.hot = true;
  return spec;
}

Result<LinearTile> LinearTile::Create(const GpuDevice& device, const TileView& weight, DType activation, TileCores cores) {
  BILLFISH_RETURN_IF_ERROR(CheckActivation(weight.form.layout, activation));
  if (weight.form.E != 1 || weight.form.order != RowOrder::kPlain) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("a dense tile kernel was asked for a weight with {} experts in {} row order; it takes one matrix in plain order",
                    weight.form.E, weight.form.order == RowOrder::kPlain ? "plain" : "a gate-up"));
  }
  LinearTile tile;
  tile.device_ = &device;
  tile.weight_ = weight;
  tile.variants_ = TileVariants(weight.form.layout, device.arch(), false, cores);
  for (const TileVariant& variant : tile.variants_) {
    const KernelSpec spec = TileSpec(weight.form.layout, variant, activation == DType::kF16, false, ActivationKind::kNone, device.arch());
    BILLFISH_ASSIGN_OR_RETURN(LoadedKernel kernel, LoadKernel(spec, device));
    tile.kernels_.push_back(std::move(kernel));
  }
  return tile;
}

Status LinearTile::Run(const void* x, int64_t x_stride, int64_t M, const TileOutput& y, CUstream stream) const {
  if (M == 0) return OkStatus();
  const TileForm& form = weight_.form;
  const Choice choice = Choose(variants_, form, M, *device_);
  const TileVariant& variant = variants_[choice.variant];
  BILLFISH_ASSIGN_OR_RETURN(LinearTileArgs args, ArgsOf(weight_, false, x, x_stride, y));
  const int64_t token_tiles = DivideUp(M, variant.tokens()), out_tiles = DivideUp(form.panels, choice.panels);
  const int64_t ctas = token_tiles * out_tiles * choice.splits;
  if (M > std::numeric_limits<int32_t>::max() || ctas > std::numeric_limits<int32_t>::max()) {
    return {
        ErrorCode::kUnsupported,
        fmt::format("{} rows of x were given to a weight with {} rows; that is {} tiles, above 2^31: split the batch", M, form.N, ctas)};
  }
  args.M = static_cast<int32_t>(M);
  const TileRing ring = RingOf(form.layout, variant, choice.panels, choice.splits, device_->arch());
  args.tile_panels = choice.panels;
  args.stages = ring.stages;
  args.stage_bytes = ring.stage_bytes;
  args.splits = choice.splits;
  args.band = static_cast<int32_t>(std::max<int64_t>(1, kBandRows / variant.tokens()));
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(ctas);
  shape.threads = static_cast<uint32_t>(variant.block_threads());
  shape.shared_bytes = ring.shared_bytes;
  shape.cluster_x = static_cast<uint32_t>(choice.splits);
  shape.dependent = variant.wgmma;
  TensorMap boxes;
  if (variant.wgmma && args.x_aligned) {
    BILLFISH_RETURN_IF_ERROR(DescribeBoxes(x, form.K, M, x_stride, variant.tokens(), boxes));
  }
  std::array<void*, 2> parameters = {&args, &boxes};
  return Launch(kernels_[choice.variant], shape, stream, std::span(parameters).first(variant.wgmma ? 2 : 1));
}

Result<GroupedTile> GroupedTile::Create(const GpuDevice& device, const TileView& weight, DType x_dtype, const Activation* activation,
                                        TileCores cores) {
  BILLFISH_RETURN_IF_ERROR(CheckActivation(weight.form.layout, x_dtype));
  const bool gated = activation != nullptr && activation->gated();
  if (gated != (weight.form.order != RowOrder::kPlain)) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a grouped tile kernel with {} was asked for a weight in {} row order; pack gate and up in a gate-up order "
                              "for a gated activation, and in plain order for everything else",
                              gated ? "a gated activation" : "no gated activation", gated ? "plain" : "a gate-up"));
  }
  GroupedTile tile;
  tile.device_ = &device;
  tile.weight_ = weight;
  tile.gated_ = gated;
  if (activation != nullptr) tile.parameters_ = {activation->limit, activation->alpha, activation->beta};
  tile.variants_ = TileVariants(weight.form.layout, device.arch(), true, cores);
  for (const TileVariant& variant : tile.variants_) {
    const KernelSpec spec = TileSpec(weight.form.layout, variant, x_dtype == DType::kF16, true, KindOf(activation), device.arch());
    BILLFISH_ASSIGN_OR_RETURN(LoadedKernel kernel, LoadKernel(spec, device));
    tile.kernels_.push_back(std::move(kernel));
  }
  return tile;
}

int GroupedTile::TileRows(int64_t rows) const {
  // Few experts should need a second tile: it decodes their weights again.
  const int64_t mean = DivideUp(rows, weight_.form.E);
  for (const TileVariant& variant : variants_) {
    if (4 * variant.tokens() >= 5 * mean) return variant.tokens();
  }
  return variants_.back().tokens();
}

int GroupedTile::CostRows(int tile_rows) const {
  const auto found = std::find_if(variants_.begin(), variants_.end(), [&](const TileVariant& v) { return v.tokens() >= tile_rows; });
  return found != variants_.end() && found->wgmma ? found->tokens() / 4 : 0;
}

Status GroupedTile::Run(const GroupedTileCall& call, CUstream stream) const {
  const auto found = std::find_if(variants_.begin(), variants_.end(), [&](const TileVariant& v) { return v.tokens() >= call.tile_rows; });
  if (found == variants_.end() || call.tile_rows < 1) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("a grouped tile kernel was given tiles of {} rows; it takes 1 to {}", call.tile_rows, variants_.back().tokens())};
  }
  BILLFISH_ASSIGN_OR_RETURN(LinearTileArgs args, ArgsOf(weight_, gated_, call.x, call.x_stride, call.y));
  const TileRing ring = RingOf(weight_.form.layout, *found, found->panels(), 1, device_->arch());
  args.tile_panels = found->panels();
  args.stages = ring.stages;
  args.stage_bytes = ring.stage_bytes;
  args.work = call.work;
  args.work_count = call.work_count;
  args.source = call.source;
  args.activation = parameters_;
  // Blocks stride over the tiles: their number is known on the device only.
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(device_->info().sms * found->ctas_per_sm);
  shape.threads = static_cast<uint32_t>(found->block_threads());
  shape.shared_bytes = ring.shared_bytes;
  std::array<void*, 1> parameters = {&args};
  return Launch(kernels_[static_cast<size_t>(found - variants_.begin())], shape, stream, parameters);
}

void AppendLinearTileSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  const auto append = [&](const TileLayout& layout, bool half, bool grouped, ActivationKind activation,
                          TileCores cores = TileCores::kBest) {
    for (const TileVariant& variant : TileVariants(layout, arch, grouped, cores)) {
      specs.push_back(TileSpec(layout, variant, half, grouped, activation, arch));
    }
  };
  for (const TileLayout& layout :
       {TileLayout{TileCodes::kInt4, TileScale::kBF16, 128, true}, TileLayout{TileCodes::kInt4, TileScale::kNone, 0}, kNvfp4,
        TileLayout{TileCodes::kE4M3, TileScale::kF32, 128}, TileLayout{TileCodes::kBF16, TileScale::kNone, 0}}) {
    append(layout, false, false, ActivationKind::kNone);
  }
  append(TileLayout{TileCodes::kInt4, TileScale::kF16, 128}, true, false, ActivationKind::kNone);
  append(kMxfp4, false, true, ActivationKind::kNone);
  append(kInt4G128, false, true, ActivationKind::kSwiglu);
  append(kNvfp4, false, true, ActivationKind::kSwigluOai);
}

}  // namespace billfish::cuda
