// Unquantised weights: one BF16, F16 or F32 tensor [N, K] or [E, N, K].
#include <fmt/format.h>

#include "checkpoint/reader.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

bool Matches(const ModuleTensors& module) {
  const TensorInfo* weight = module.Find(Role::kWeight);
  if (weight == nullptr) return false;
  return weight->dtype == DType::kBF16 || weight->dtype == DType::kF16 || weight->dtype == DType::kF32;
}

Result<ModuleInfo> DescribeModule(const ReadContext& context) {
  const TensorInfo& weight = *context.module.Find(Role::kWeight);
  const size_t rank = weight.shape.size();
  if (rank != 2 && rank != 3) return ModuleError(context, fmt::format("{} must have rank 2 or 3", Describe(weight)));
  ModuleInfo info;
  info.format = "plain";
  info.scheme = weight.dtype == DType::kBF16 ? schemes::kBf16 : weight.dtype == DType::kF16 ? schemes::kF16 : schemes::kF32;
  info.E = rank == 3 ? weight.shape[0] : 1;
  info.N = weight.shape[rank - 2];
  info.K = weight.shape[rank - 1];
  return info;
}

Result<PackedWeight> Load(const ReadContext& context, const ModuleInfo& info) {
  WeightParts parts;
  parts.codes = context.bytes(*context.module.Find(Role::kWeight));
  return PackedWeight::FromParts(info.scheme, info.E, info.N, info.K, std::move(parts));
}

}  // namespace

const Reader kPlainReader = {Matches, DescribeModule, Load};

}  // namespace billfish::checkpoint
