// FP4 (E2M1) weights under every name: bytes of two codes along K, even k in the low nibble, [N, K/2] or [E, N, K/2].
//
//   NVFP4   E4M3 scale per 16 k and a global scale. compressed-tensors stores a divisor (weight_global_scale = 2688 / amax), ModelOpt and
//           others a multiplier (weight_scale_2 = amax / 2688). It may differ between gate and up, between experts, and between equal
//           sections of rows ([E, 2] for stacked gate and up); each row keeps its own.
//   MXFP4   E8M0 scale per 32 k: F8_E8M0, U8, or F32 powers of two. gpt-oss stores blocks [E, N, K/32, 16]; DeepSeek-V4 stores I8.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "checkpoint/reader.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

const TensorInfo* MainTensor(const ModuleTensors& module) {
  for (const Role role : {Role::kPackedWeight, Role::kBlocks, Role::kWeight}) {
    if (module.Has(role)) return module.Find(role);
  }
  return nullptr;
}

bool IsE8M0(const TensorInfo& scales, bool has_global) {
  return scales.dtype == DType::kF8E8M0 || scales.dtype == DType::kF32 || (scales.dtype == DType::kU8 && !has_global);
}

bool Matches(const ModuleTensors& module) {
  const TensorInfo* weight = MainTensor(module);
  const TensorInfo* scales = module.Find(Role::kScale);
  if (weight == nullptr || scales == nullptr || module.Has(Role::kGptqWeight)) return false;
  if (weight->dtype == DType::kF4E2M1 || module.Has(Role::kBlocks) || module.Has(Role::kPackedWeight)) return true;
  if (weight->dtype != DType::kU8 && weight->dtype != DType::kI8) return false;
  // Bytes could be FP8 as well: FP8 has float scales and at most one per row or 2-D block, never one per 32 k.
  const bool byte_scales = scales->dtype == DType::kF8E4M3 || scales->dtype == DType::kF8E8M0 || scales->dtype == DType::kU8;
  return byte_scales || (weight->dtype == DType::kI8 && scales->dtype == DType::kF32);
}

Result<ModuleInfo> DescribeModule(const ReadContext& context) {
  const ModuleTensors& module = context.module;
  const TensorInfo& weight = *MainTensor(module);
  const TensorInfo& scales = *module.Find(Role::kScale);
  ModuleInfo info;
  std::vector<int64_t> shape = weight.shape;
  const bool blocks = module.Has(Role::kBlocks);
  if (weight.dtype != DType::kU8 && weight.dtype != DType::kI8 && weight.dtype != DType::kF4E2M1) {
    return ModuleError(context, fmt::format("{} must be U8, I8 or F4 to hold FP4 codes", Describe(weight)));
  }
  if (blocks && !shape.empty()) {  // [.., G, 16] -> [.., K/2]
    const int64_t bytes = shape.back();
    shape.pop_back();
    if (bytes != 16 || shape.size() < 2) return ModuleError(context, fmt::format("{} must end in blocks of 16 bytes", Describe(weight)));
    shape.back() *= bytes;
  }
  if (shape.size() != 2 && shape.size() != 3)
    return ModuleError(context, fmt::format("{} must hold [N, K/2] or [E, N, K/2]", Describe(weight)));
  info.E = shape.size() == 3 ? shape[0] : 1;
  info.N = shape[shape.size() - 2];
  info.K = weight.dtype == DType::kF4E2M1 ? shape.back() : shape.back() * 2;

  std::vector<int64_t> grid(scales.shape);
  while (grid.size() > shape.size() && grid.front() == 1) grid.erase(grid.begin());  // some exporters leave extents of 1 in front
  if (grid.size() != shape.size() || !std::equal(grid.begin(), grid.end() - 1, shape.begin())) {
    return ModuleError(context,
                       fmt::format("{} does not fit {}: one scale per row and group of k is expected", Describe(scales), Describe(weight)));
  }
  const int64_t groups = grid.back();
  const bool has_global = module.Has(Role::kGlobalScale) || module.Has(Role::kGlobalDivisor);
  const bool mx = IsE8M0(scales, has_global);
  const int64_t usual = mx ? 32 : 16;
  const int64_t group = (info.K - 1) / usual + 1 == groups ? usual : info.K % groups == 0 ? info.K / groups : 0;
  if (group < 2) return ModuleError(context, fmt::format("{} has {} groups, which do not divide K = {}", Describe(scales), groups, info.K));
  if (mx) {
    info.scheme = schemes::kMxfp4;
    info.format = blocks ? "gpt-oss mxfp4" : module.Has(Role::kPackedWeight) ? "compressed-tensors mxfp4-pack-quantized" : "mxfp4";
    BILLFISH_RETURN_IF_ERROR(CheckMethod(context, "MXFP4 (E2M1 codes, E8M0 scales)",
                                         {Method::kMxfp4, Method::kCompressedTensors, Method::kFp8, Method::kModelOpt}));
  } else {
    if (scales.dtype != DType::kF8E4M3 && scales.dtype != DType::kU8) {
      return ModuleError(context, fmt::format("{} must be F8_E4M3 for NVFP4 or F8_E8M0 for MXFP4", Describe(scales)));
    }
    if (!has_global) {
      return ModuleError(
          context,
          "its NVFP4 global scale (weight_scale_2 or weight_global_scale) is missing, and without it every weight is off by one factor");
    }
    info.scheme = schemes::kNvfp4;
    info.format = module.Has(Role::kGlobalDivisor) ? "compressed-tensors nvfp4-pack-quantized" : "modelopt nvfp4";
    BILLFISH_RETURN_IF_ERROR(CheckMethod(context, "NVFP4 (E2M1 codes, E4M3 scales)", {Method::kCompressedTensors, Method::kModelOpt}));
  }
  const std::string& format = context.config.format;
  if (context.config.method == Method::kCompressedTensors && format.size() > 4 && format.find("fp4-pack-quantized") != std::string::npos &&
      format.rfind(mx ? "mx" : "nv", 0) != 0) {
    return ModuleError(context, fmt::format("its tensors are {} and {} says format \"{}\"; one of the two is wrong", info.scheme.Name(),
                                            context.config.source, format));
  }
  info.scheme.group = group;
  return info;
}

// fp32 powers of two -> E8M0 bytes, exactly.
Result<Bytes> ExponentBytes(const ReadContext& context, const TensorInfo& scales) {
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<float> values, ToF32(context, scales));
  std::vector<uint8_t> bytes(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    int exponent = 0;
    if (!std::isfinite(values[i]) || std::frexp(values[i], &exponent) != 0.5f || exponent < -126 || exponent > 128) {
      return ModuleError(context, fmt::format("{} holds {}, which is no power of two from 2^-127 to 2^127", scales.name, values[i]));
    }
    bytes[i] = static_cast<uint8_t>(exponent + 126);
  }
  return Bytes::Own(std::move(bytes));
}

// One factor per row from one number per tensor, per expert or per equal section of an expert's rows.
Result<std::vector<float>> RowScales(const ReadContext& context, const ModuleInfo& info) {
  const bool divides = context.module.Has(Role::kGlobalDivisor);
  const TensorInfo& tensor = *context.module.Find(divides ? Role::kGlobalDivisor : Role::kGlobalScale);
  if (tensor.dtype == DType::kU8 || tensor.dtype == DType::kF8E8M0)
    return ModuleError(context, fmt::format("{} must be F32", Describe(tensor)));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<float> values, ToF32(context, tensor));
  const auto count = static_cast<int64_t>(values.size());
  const int64_t rows = info.E * info.N;
  const bool whole = count == 1;
  const bool sections = count >= 1 && count % info.E == 0 && info.N % (count / info.E) == 0;
  if (!whole && !sections) {
    return ModuleError(context, fmt::format("{} must hold one number, one per expert, or one per equal section of each expert's {} rows",
                                            Describe(tensor), info.N));
  }
  std::vector<float> factors(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) {
    const float value = values[static_cast<size_t>(row / (rows / count))];
    factors[static_cast<size_t>(row)] = divides ? 1.0f / value : value;
  }
  return factors;
}

Result<PackedWeight> Load(const ReadContext& context, const ModuleInfo& info) {
  const TensorInfo& scales = *context.module.Find(Role::kScale);
  WeightParts parts;
  parts.codes = context.bytes(*MainTensor(context.module));
  if (scales.dtype == DType::kF32) {
    BILLFISH_ASSIGN_OR_RETURN(parts.scales, ExponentBytes(context, scales));
  } else {
    parts.scales = context.bytes(scales);
  }
  if (info.scheme.row_scale) {
    BILLFISH_ASSIGN_OR_RETURN(parts.row_scale, RowScales(context, info));
  }
  return PackedWeight::FromParts(info.scheme, info.E, info.N, info.K, std::move(parts));
}

}  // namespace

const Reader kFp4Reader = {Matches, DescribeModule, Load};

}  // namespace billfish::checkpoint
