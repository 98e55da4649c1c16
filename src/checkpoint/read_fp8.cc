// FP8 (E4M3) weights [N, K] or [E, N, K] with one scale per tensor, per row, or per block of rows and columns (128 x 128 unless the
// configuration says otherwise). The scale multiplies under every name, weight_scale_inv included. Edge blocks may be partial, and
// the grid of scales may be padded. Scales may be F32, BF16, F16, F8_E8M0 (DeepSeek-V4) or its bytes; they are widened to F32, exactly.
#include <fmt/format.h>

#include "checkpoint/reader.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

bool Matches(const ModuleTensors& module) {
  const TensorInfo* weight = module.Find(Role::kWeight);
  const TensorInfo* scales = module.Find(Role::kScale);
  if (weight == nullptr) return false;
  if (weight->dtype == DType::kF8E4M3) return true;
  return weight->dtype == DType::kU8 && scales != nullptr && !module.Has(Role::kGlobalScale) &&
         (scales->dtype == DType::kF32 || scales->dtype == DType::kBF16 || scales->dtype == DType::kF16);
}

constexpr int64_t kMaxBlock = 1 << 16;

int64_t Blocks(int64_t count, int64_t block) { return (count - 1) / block + 1; }

// Rows and columns of a block for a grid of R x G scales.
Result<std::pair<int64_t, int64_t>> BlockShape(const ReadContext& context, const ModuleInfo& info, const TensorInfo& scales, int64_t R,
                                               int64_t G) {
  if (!context.config.block.empty()) {
    const int64_t rows = context.config.block[0], columns = context.config.block[1];
    if (rows >= 1 && rows <= kMaxBlock && columns >= 1 && columns <= kMaxBlock && Blocks(info.N, rows) <= R &&
        Blocks(info.K, columns) <= G) {
      return std::pair(rows, columns);
    }
    return ModuleError(context, fmt::format("{} is too small for [{}, {}] in blocks of {} x {}, which {} names", Describe(scales), info.N,
                                            info.K, rows, columns, context.config.source));
  }
  for (const int64_t block : {128, 64, 32}) {
    if (Blocks(info.N, block) == R && Blocks(info.K, block) == G) return std::pair(block, block);
  }
  if (Blocks(info.N, 128) <= R && Blocks(info.K, 128) <= G) return std::pair<int64_t, int64_t>(128, 128);  // padded grid
  return ModuleError(context, fmt::format("{} fits no block size for [{}, {}]", Describe(scales), info.N, info.K));
}

Result<ModuleInfo> DescribeModule(const ReadContext& context) {
  BILLFISH_RETURN_IF_ERROR(CheckMethod(context, "FP8 (E4M3)", {Method::kFp8, Method::kCompressedTensors, Method::kModelOpt}));
  const TensorInfo& weight = *context.module.Find(Role::kWeight);
  BILLFISH_ASSIGN_OR_RETURN(const TensorInfo* scales, Require(context, Role::kScale, "scale"));
  const size_t rank = weight.shape.size();
  if (rank != 2 && rank != 3) return ModuleError(context, fmt::format("{} must have rank 2 or 3", Describe(weight)));
  ModuleInfo info;
  info.E = rank == 3 ? weight.shape[0] : 1;
  info.N = weight.shape[rank - 2];
  info.K = weight.shape[rank - 1];
  int64_t count = 1;
  for (const int64_t extent : scales->shape) count *= extent;
  const std::vector<int64_t>& shape = scales->shape;
  if (count == info.E || count == 1) {
    info.scheme = schemes::kFp8Tensor;
    info.format = "fp8 per tensor";
  } else if (context.config.block.empty() && count == info.E * info.N) {
    info.scheme = schemes::kFp8Channel;
    info.format = "fp8 per channel";
  } else {
    if (shape.size() != rank || (rank == 3 && shape[0] != info.E)) {
      return ModuleError(context, fmt::format("{} does not fit {}", Describe(*scales), Describe(weight)));
    }
    BILLFISH_ASSIGN_OR_RETURN(const auto block, BlockShape(context, info, *scales, shape[rank - 2], shape[rank - 1]));
    info.scheme = schemes::kFp8Block128;
    info.scheme.group_rows = block.first;
    info.scheme.group = block.second;
    info.format = fmt::format("fp8 blocks {} x {}", block.first, block.second);
  }
  return info;
}

Result<PackedWeight> Load(const ReadContext& context, const ModuleInfo& info) {
  const TensorInfo& tensor = *context.module.Find(Role::kScale);
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<float> stored, ToF32(context, tensor));
  const int64_t R = info.scheme.group_rows == 0 ? 1 : Blocks(info.N, info.scheme.group_rows);
  const int64_t G = info.scheme.group == 0 ? 1 : Blocks(info.K, info.scheme.group);
  std::vector<float> scales(static_cast<size_t>(info.E * R * G));
  const bool blocks = info.scheme.group_rows > 1 || info.scheme.group > 0;
  const int64_t stored_rows = blocks ? tensor.shape[tensor.shape.size() - 2] : R;
  const int64_t stored_groups = blocks ? tensor.shape.back() : G;
  for (int64_t e = 0; e < info.E; ++e) {
    for (int64_t r = 0; r < R; ++r) {
      for (int64_t g = 0; g < G; ++g) {
        const int64_t from = stored.size() == 1 ? 0 : (e * stored_rows + r) * stored_groups + g;
        scales[static_cast<size_t>((e * R + r) * G + g)] = stored[static_cast<size_t>(from)];
      }
    }
  }
  WeightParts parts;
  parts.codes = context.bytes(*context.module.Find(Role::kWeight));
  parts.scales = Bytes::Own(std::move(scales));
  return PackedWeight::FromParts(info.scheme, info.E, info.N, info.K, std::move(parts));
}

}  // namespace

const Reader kFp8Reader = {Matches, DescribeModule, Load};

}  // namespace billfish::checkpoint
