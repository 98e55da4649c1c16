// AWQ, version gemm: qweight I32 [K, N/8], nibble i of word (k, m) = q[k, 8m + kOrder[i]]; qzeros I32 [G, N/8] in the same order, stored as
// they are; scales [G, N]. W[n,k] = (q - z) * scales[k / g, n].
#include <fmt/format.h>

#include <array>
#include <cstring>

#include "checkpoint/reader.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

// Nibble that holds column 8m + c: the inverse of the order 0 2 4 6 1 3 5 7.
constexpr std::array<int, 8> kNibbleOfColumn = {0, 4, 1, 5, 2, 6, 3, 7};

uint32_t Nibble(const Bytes& words, int64_t row, int64_t words_per_row, int64_t column) {
  uint32_t word;
  std::memcpy(&word, words.data() + (row * words_per_row + column / 8) * 4, 4);
  return word >> (4 * kNibbleOfColumn[static_cast<size_t>(column % 8)]) & 15u;
}

bool Matches(const ModuleTensors& module) {
  const TensorInfo* weight = module.Find(Role::kGptqWeight);
  const TensorInfo* scales = module.Find(Role::kScale);
  return weight != nullptr && scales != nullptr && weight->shape.size() == 2 && scales->shape.size() == 2 &&
         weight->shape[1] != scales->shape[1] && weight->shape[1] == scales->shape[1] / 8 && scales->shape[1] % 8 == 0;
}

Result<ModuleInfo> DescribeModule(const ReadContext& context) {
  BILLFISH_RETURN_IF_ERROR(CheckMethod(context, "AWQ gemm (qweight packed along N)", {Method::kAwq}));
  const GptqSettings& settings = context.config.gptq;
  if (settings.bits != 4) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{}: {} says {} bits; billfish reads AWQ with 4", context.module.name, context.config.source, settings.bits));
  }
  const TensorInfo& weight = *context.module.Find(Role::kGptqWeight);
  const TensorInfo& scales = *context.module.Find(Role::kScale);
  BILLFISH_ASSIGN_OR_RETURN(const TensorInfo* zeros, Require(context, Role::kZeros, "qzeros"));
  if (weight.dtype != DType::kI32) return ModuleError(context, fmt::format("{} must be I32", Describe(weight)));
  const int64_t groups = scales.shape[0];
  ModuleInfo info;
  info.N = scales.shape[1];
  info.K = weight.shape[0];
  if (zeros->dtype != DType::kI32 || zeros->shape != std::vector<int64_t>{groups, info.N / 8}) {
    return ModuleError(context, fmt::format("{} must be I32[{}, {}]", Describe(*zeros), groups, info.N / 8));
  }
  BILLFISH_ASSIGN_OR_RETURN(const int64_t group, GroupSize(context, settings.group_size, info.K, groups));
  BILLFISH_ASSIGN_OR_RETURN(const DType scale, ScaleDType(context, scales));
  info.scheme = schemes::Int4(group, /*symmetric=*/false, scale);
  info.format = "awq-gemm";
  return info;
}

Result<PackedWeight> Load(const ReadContext& context, const ModuleInfo& info) {
  const int64_t N = info.N, K = info.K, row_bytes = (K + 1) / 2;
  const TensorInfo& scale_tensor = *context.module.Find(Role::kScale);
  const int64_t groups = scale_tensor.shape[0];
  const Bytes words = context.bytes(*context.module.Find(Role::kGptqWeight));
  std::vector<uint8_t> codes(static_cast<size_t>(N * row_bytes));
  for (int64_t k = 0; k < K; ++k) {
    for (int64_t n = 0; n < N; ++n) {
      codes[static_cast<size_t>(n * row_bytes + k / 2)] |= static_cast<uint8_t>(Nibble(words, k, N / 8, n) << (4 * (k % 2)));
    }
  }
  const Bytes stored_zeros = context.bytes(*context.module.Find(Role::kZeros));
  const Bytes stored_scales = context.bytes(scale_tensor);
  const auto scale_bytes = static_cast<size_t>(DTypeBits(scale_tensor.dtype) / 8);
  std::vector<std::byte> scales(stored_scales.size());
  std::vector<uint8_t> zeros(static_cast<size_t>(N * groups));
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t n = 0; n < N; ++n) {
      const auto to = static_cast<size_t>(n * groups + g);
      zeros[to] = static_cast<uint8_t>(Nibble(stored_zeros, g, N / 8, n));
      std::memcpy(scales.data() + to * scale_bytes, stored_scales.data() + static_cast<size_t>(g * N + n) * scale_bytes, scale_bytes);
    }
  }
  WeightParts parts;
  parts.codes = Bytes::Own(std::move(codes));
  parts.scales = Bytes::Own(std::move(scales));
  parts.zeros = Bytes::Own(std::move(zeros));
  return PackedWeight::FromParts(info.scheme, 1, N, K, std::move(parts));
}

}  // namespace

const Reader kAwqReader = {Matches, DescribeModule, Load};

}  // namespace billfish::checkpoint
