// GPTQ: qweight I32 [K/8, N], nibble j of word (i, n) = q[8i + j, n]; qzeros I32 [G, ceil(N/8)], nibble j of word (g, m) = stored zero of
// column 8m + j; scales [G, N]; g_idx I32 [K]. W[n,k] = scales[g,n] * (q - z), g = g_idx[k].
//
// Zero points: sym -> 8, whatever is stored. v2 -> as stored. v1 -> stored + 1, not masked, so 16 occurs; GPTQModel subtracts 0x11111111
// from the whole word when it writes v1, so for its files the whole word gets 0x11111111 back, borrows and all.
#include <fmt/format.h>

#include <cstring>

#include "checkpoint/reader.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

constexpr uint32_t kOneInEveryNibble = 0x11111111u;

uint32_t Word(const Bytes& bytes, int64_t index) {
  uint32_t word;
  std::memcpy(&word, bytes.data() + index * 4, 4);
  return word;
}

bool Matches(const ModuleTensors& module) {
  const TensorInfo* weight = module.Find(Role::kGptqWeight);
  const TensorInfo* scales = module.Find(Role::kScale);
  return weight != nullptr && scales != nullptr && weight->shape.size() == 2 && scales->shape.size() == 2 &&
         weight->shape[1] == scales->shape[1];
}

Result<ModuleInfo> DescribeModule(const ReadContext& context) {
  BILLFISH_RETURN_IF_ERROR(CheckMethod(context, "GPTQ (qweight packed along K)", {Method::kGptq}));
  BILLFISH_ASSIGN_OR_RETURN(const GptqSettings settings, context.config.GptqFor(context.module.name));
  const TensorInfo& weight = *context.module.Find(Role::kGptqWeight);
  const TensorInfo& scales = *context.module.Find(Role::kScale);
  if (weight.dtype != DType::kI32) return ModuleError(context, fmt::format("{} must be I32", Describe(weight)));
  if (settings.bits != 4) {
    return Status(ErrorCode::kUnsupported, fmt::format("{}: {} says {} bits; billfish reads GPTQ with 4", context.module.name,
                                                       context.config.source, settings.bits));
  }
  ModuleInfo info;
  info.N = weight.shape[1];
  info.K = weight.shape[0] * 8;
  const int64_t groups = scales.shape[0];
  BILLFISH_ASSIGN_OR_RETURN(const int64_t group, GroupSize(context, settings.group_size, info.K, groups));
  BILLFISH_ASSIGN_OR_RETURN(const DType scale, ScaleDType(context, scales));
  if (!settings.sym) {
    BILLFISH_ASSIGN_OR_RETURN(const TensorInfo* zeros, Require(context, Role::kZeros, "qzeros"));
    if (zeros->dtype != DType::kI32 || zeros->shape != std::vector<int64_t>{groups, (info.N + 7) / 8}) {
      return ModuleError(context, fmt::format("{} must be I32[{}, {}]", Describe(*zeros), groups, (info.N + 7) / 8));
    }
  }
  info.scheme = schemes::Int4(group, settings.sym, scale);
  info.format = context.config.gptq_v2 ? "gptq-v2" : "gptq-v1";
  info.act_order = settings.desc_act && context.module.Has(Role::kGroupIndex) && groups > 1;
  return info;
}

uint8_t ZeroPointOf(const QuantConfig& config, uint32_t word, int64_t nibble) {
  if (!config.gptq_v2 && config.gptq_whole_word_zeros) word += kOneInEveryNibble;
  const auto stored = static_cast<uint8_t>(word >> (4 * nibble) & 15u);
  return !config.gptq_v2 && !config.gptq_whole_word_zeros ? static_cast<uint8_t>(stored + 1) : stored;
}

Result<PackedWeight> Load(const ReadContext& context, const ModuleInfo& info) {
  const int64_t N = info.N, K = info.K;
  const TensorInfo& scale_tensor = *context.module.Find(Role::kScale);
  const int64_t groups = scale_tensor.shape[0];
  const int64_t group = info.scheme.group == 0 ? K : info.scheme.group;
  BILLFISH_ASSIGN_OR_RETURN(std::vector<int32_t> perm, ColumnOrder(context, context.module.Find(Role::kGroupIndex), K, group, groups));

  // A word holds 8 consecutive k of one column, low nibble first: exactly 4 bytes of the plain row.
  const Bytes words = context.bytes(*context.module.Find(Role::kGptqWeight));
  std::vector<std::byte> codes(static_cast<size_t>(N * K / 2));
  if (perm.empty()) {
    for (int64_t i = 0; i < K / 8; ++i) {
      for (int64_t n = 0; n < N; ++n) std::memcpy(codes.data() + n * K / 2 + 4 * i, words.data() + (i * N + n) * 4, 4);
    }
  } else {
    for (int64_t j = 0; j < K; ++j) {
      const int64_t k = perm[static_cast<size_t>(j)];
      for (int64_t n = 0; n < N; ++n) {
        const uint32_t q = Word(words, k / 8 * N + n) >> (4 * (k % 8)) & 15u;
        codes[static_cast<size_t>(n * K / 2 + j / 2)] |= static_cast<std::byte>(q << (4 * (j % 2)));
      }
    }
  }

  const Bytes stored_scales = context.bytes(scale_tensor);
  const auto scale_bytes = static_cast<size_t>(DTypeBits(scale_tensor.dtype) / 8);
  std::vector<std::byte> scales(stored_scales.size());
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t n = 0; n < N; ++n) {
      std::memcpy(scales.data() + static_cast<size_t>(n * groups + g) * scale_bytes,
                  stored_scales.data() + static_cast<size_t>(g * N + n) * scale_bytes, scale_bytes);
    }
  }
  WeightParts parts;
  if (info.scheme.zero == ZeroPoint::kPerGroup) {
    const Bytes stored_zeros = context.bytes(*context.module.Find(Role::kZeros));
    const int64_t words_per_group = (N + 7) / 8;
    std::vector<uint8_t> zeros(static_cast<size_t>(N * groups));
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t n = 0; n < N; ++n) {
        zeros[static_cast<size_t>(n * groups + g)] = ZeroPointOf(context.config, Word(stored_zeros, g * words_per_group + n / 8), n % 8);
      }
    }
    parts.zeros = Bytes::Own(std::move(zeros));
  }
  parts.codes = Bytes::Own(std::move(codes));
  parts.scales = Bytes::Own(std::move(scales));
  parts.perm = std::move(perm);
  return PackedWeight::FromParts(info.scheme, 1, N, K, std::move(parts));
}

}  // namespace

const Reader kGptqReader = {Matches, DescribeModule, Load};

}  // namespace billfish::checkpoint
