// compressed-tensors pack-quantized, 4 bits: weight_packed I32 [N, ceil(K/8)], nibble j of word i = q[n, 8i + j] + 8 with q signed;
// weight_scale [N, G] or [N, 1]; weight_zero_point I32 [ceil(N/8), G], nibble n % 8 of word (n / 8, g) = zero + 8; weight_shape [2] = (N,
// K); weight_g_idx I32 [K]. The offsets of 8 cancel: unsigned code minus unsigned zero, which is 8 where there is none.
#include <fmt/format.h>

#include <cstring>

#include "checkpoint/reader.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

bool Matches(const ModuleTensors& module) {
  const TensorInfo* weight = module.Find(Role::kPackedWeight);
  return weight != nullptr && (weight->dtype == DType::kI32 || weight->dtype == DType::kU32) && weight->shape.size() == 2;
}

// (N, K) of weight_shape; files hold I64 or I32.
Result<std::pair<int64_t, int64_t>> StoredShape(const ReadContext& context, const TensorInfo& shape) {
  if (shape.shape != std::vector<int64_t>{2} || (shape.dtype != DType::kI64 && shape.dtype != DType::kI32)) {
    return ModuleError(context, fmt::format("{} must be I64[2] or I32[2]", Describe(shape)));
  }
  const Bytes bytes = context.bytes(shape);
  if (shape.dtype == DType::kI64) {
    int64_t v[2];
    std::memcpy(v, bytes.data(), sizeof v);
    return std::pair(v[0], v[1]);
  }
  int32_t v[2];
  std::memcpy(v, bytes.data(), sizeof v);
  return std::pair<int64_t, int64_t>(v[0], v[1]);
}

Result<int64_t> GroupOf(const ReadContext& context, int64_t K, int64_t groups) {
  if (groups > 1 && K % groups != 0) {
    for (const int64_t group : {32, 64, 128, 16, 256}) {  // K with a shorter last group
      if ((K - 1) / group + 1 == groups) return group;
    }
  }
  return GroupSize(context, std::nullopt, K, groups);
}

Result<ModuleInfo> DescribeModule(const ReadContext& context) {
  BILLFISH_RETURN_IF_ERROR(CheckMethod(context, "compressed-tensors pack-quantized", {Method::kCompressedTensors}));
  const TensorInfo& weight = *context.module.Find(Role::kPackedWeight);
  BILLFISH_ASSIGN_OR_RETURN(const TensorInfo* scales, Require(context, Role::kScale, "weight_scale"));
  ModuleInfo info;
  info.N = weight.shape[0];
  info.K = weight.shape[1] * 8;
  if (const TensorInfo* shape = context.module.Find(Role::kShape)) {
    BILLFISH_ASSIGN_OR_RETURN(const auto stored, StoredShape(context, *shape));
    if (stored.first != info.N || stored.second < 1 || stored.second > info.K || (stored.second + 7) / 8 != weight.shape[1]) {
      return ModuleError(context, fmt::format("weight_shape says [{}, {}], which does not fit {}; 4-bit codes are expected, 8 a word",
                                              stored.first, stored.second, Describe(weight)));
    }
    info.K = stored.second;
  }
  if (scales->shape.size() != 2 || scales->shape[0] != info.N || scales->shape[1] < 1) {
    return ModuleError(context, fmt::format("{} must be [{}, groups]", Describe(*scales), info.N));
  }
  const int64_t groups = scales->shape[1];
  BILLFISH_ASSIGN_OR_RETURN(const int64_t group, GroupOf(context, info.K, groups));
  BILLFISH_ASSIGN_OR_RETURN(const DType scale, ScaleDType(context, *scales));
  const TensorInfo* zeros = context.module.Find(Role::kZeros);
  if (zeros != nullptr && (zeros->dtype != DType::kI32 || zeros->shape != std::vector<int64_t>{(info.N + 7) / 8, groups})) {
    return ModuleError(context, fmt::format("{} must be I32[{}, {}]", Describe(*zeros), (info.N + 7) / 8, groups));
  }
  info.scheme = schemes::Int4(group, zeros == nullptr, scale);
  info.format = "compressed-tensors pack-quantized";
  info.act_order = context.module.Has(Role::kGroupIndex) && groups > 1;
  return info;
}

Result<PackedWeight> Load(const ReadContext& context, const ModuleInfo& info) {
  const int64_t N = info.N, K = info.K, row_bytes = (K + 1) / 2;
  const TensorInfo& weight = *context.module.Find(Role::kPackedWeight);
  const int64_t groups = context.module.Find(Role::kScale)->shape[1];
  const int64_t group = info.scheme.group == 0 ? K : info.scheme.group;
  BILLFISH_ASSIGN_OR_RETURN(std::vector<int32_t> perm, ColumnOrder(context, context.module.Find(Role::kGroupIndex), K, group, groups));

  WeightParts parts;
  const Bytes words = context.bytes(weight);
  const int64_t stored_row = weight.shape[1] * 4;
  if (perm.empty() && stored_row == row_bytes && K % 2 == 0) {
    parts.codes = words;  // low nibble first along K: the plain form already
  } else {
    std::vector<uint8_t> codes(static_cast<size_t>(N * row_bytes));
    for (int64_t n = 0; n < N; ++n) {
      const std::byte* row = words.data() + n * stored_row;
      for (int64_t j = 0; j < K; ++j) {
        const int64_t k = perm.empty() ? j : perm[static_cast<size_t>(j)];
        const unsigned q = static_cast<unsigned>(row[k / 2]) >> (4 * (k % 2)) & 15u;
        codes[static_cast<size_t>(n * row_bytes + j / 2)] |= static_cast<uint8_t>(q << (4 * (j % 2)));
      }
    }
    parts.codes = Bytes::Own(std::move(codes));
  }
  if (const TensorInfo* zeros = context.module.Find(Role::kZeros)) {
    const Bytes stored = context.bytes(*zeros);
    std::vector<uint8_t> values(static_cast<size_t>(N * groups));
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t g = 0; g < groups; ++g) {
        uint32_t word;
        std::memcpy(&word, stored.data() + (n / 8 * groups + g) * 4, 4);
        values[static_cast<size_t>(n * groups + g)] = static_cast<uint8_t>(word >> (4 * (n % 8)) & 15u);
      }
    }
    parts.zeros = Bytes::Own(std::move(values));
  }
  parts.scales = context.bytes(*context.module.Find(Role::kScale));
  parts.perm = std::move(perm);
  return PackedWeight::FromParts(info.scheme, 1, N, K, std::move(parts));
}

}  // namespace

const Reader kPackQuantizedReader = {Matches, DescribeModule, Load};

}  // namespace billfish::checkpoint
