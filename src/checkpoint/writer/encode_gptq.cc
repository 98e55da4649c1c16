// GPTQ: qweight I32 [K/8, N], qzeros I32 [G, N/8], scales F16 [G, N], g_idx I32 [K]; read_gptq.cc describes the bits. Symmetric weights are
// written as version 1 (stored zero = 7, which every reader knows), asymmetric ones as version 2 (stored as they are): version 1 would have
// to store -1 for a zero point of 0.
#include <fmt/format.h>

#include <cstring>

#include "billfish/version.h"
#include "checkpoint/writer/encoding.h"
#include "checkpoint/writer/left_out.h"
#include "checkpoint/writer/nibble_words.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

constexpr uint32_t kSymmetricZeros = 0x77777777u;  // version 1: zero point 8 - 1 in every nibble

Status CheckScheme(const QuantScheme& scheme) {
  const bool fits = scheme.codes == CodeBook::kInt4 && scheme.group_rows == 1 && !scheme.row_scale &&
                    (scheme.scale == DType::kF16 || scheme.scale == DType::kBF16 || scheme.scale == DType::kF32);
  return fits ? OkStatus() : Status(ErrorCode::kInvalidArgument, "only int4 fits");
}

Status CheckShape(const EncodedShape& shape) {
  if (shape.E != 1) {
    return {ErrorCode::kUnsupported,
            fmt::format("{} stacks {} experts in one tensor; GPTQ holds one module per expert", shape.module, shape.E)};
  }
  if (shape.N % 8 != 0) {
    return {ErrorCode::kInvalidArgument, fmt::format("{} has N = {} rows, which GPTQ packs eight to a word; ignore the module, or use the "
                                                     "layout compressed-tensors",
                                                     shape.module, shape.N)};
  }
  BILLFISH_RETURN_IF_ERROR(CheckColumns(shape, 8));
  return CheckColumns(shape, shape.scheme.group);
}

std::vector<OutputTensor> Tensors(const EncodedShape& shape) {
  const int64_t groups = shape.scheme.group == 0 ? 1 : shape.K / shape.scheme.group;
  return {{shape.module + ".qweight", DType::kI32, {shape.K / 8, shape.N}},
          {shape.module + ".qzeros", DType::kI32, {groups, shape.N / 8}},
          {shape.module + ".scales", shape.scheme.scale, {groups, shape.N}},
          {shape.module + ".g_idx", DType::kI32, {shape.K}}};
}

// [N, columns] elements of `size` bytes -> [columns, N].
Bytes Transposed(const Bytes& from, int64_t N, int64_t columns, size_t size) {
  std::vector<std::byte> to(from.size());
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t c = 0; c < columns; ++c) {
      std::memcpy(to.data() + static_cast<size_t>(c * N + n) * size, from.data() + static_cast<size_t>(n * columns + c) * size, size);
    }
  }
  return Bytes::Own(std::move(to));
}

// Word m of a row is the zeros of columns 8m to 8m + 7: [N, G] -> [G, N/8].
Result<Bytes> Zeros(const PackedWeight& weight) {
  const int64_t N = weight.N(), groups = weight.groups();
  std::vector<uint32_t> words(static_cast<size_t>(groups * N / 8), kSymmetricZeros);
  if (weight.scheme().zero == ZeroPoint::kPerGroup) {
    const std::vector<uint8_t> zeros = ZeroPoints(weight);
    if (FirstWideZero(zeros) >= 0) {
      return Status(ErrorCode::kUnsupported, "it has a zero point of 16, which the 4 bits of GPTQ version 2 do not hold");
    }
    const std::vector<uint32_t> by_row = PackAlongRows(zeros, N, groups);  // [N/8, G]
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t m = 0; m < N / 8; ++m) words[static_cast<size_t>(g * N / 8 + m)] = by_row[static_cast<size_t>(m * groups + g)];
    }
  }
  return Bytes::Own(std::move(words));
}

Result<std::vector<Bytes>> Encode(const PackedWeight& weight) {
  const int64_t N = weight.N(), K = weight.K();
  const int64_t group = weight.scheme().group == 0 ? K : weight.scheme().group;
  BILLFISH_ASSIGN_OR_RETURN(Bytes zeros, Zeros(weight));
  std::vector<int32_t> g_idx(static_cast<size_t>(K));
  for (int64_t k = 0; k < K; ++k) g_idx[static_cast<size_t>(k)] = static_cast<int32_t>(k / group);
  // Four bytes of a plain row are a word: eight consecutive k, low nibble first.
  return std::vector<Bytes>{
      Transposed(weight.parts().codes, N, K / 8, 4), std::move(zeros),
      Transposed(weight.parts().scales, N, weight.groups(), static_cast<size_t>(DTypeBits(weight.scheme().scale) / 8)),
      Bytes::Own(std::move(g_idx))};
}

nlohmann::ordered_json Config(const WrittenModules& modules) {
  const bool symmetric = modules.scheme.zero == ZeroPoint::kNone;
  const char* format = symmetric ? "gptq" : "gptq_v2";
  nlohmann::ordered_json config = {
      {"quant_method", "gptq"},
      {"bits", 4},
      {"group_size", modules.scheme.group == 0 ? -1 : modules.scheme.group},
      {"desc_act", false},
      {"sym", symmetric},
      {"lm_head", modules.head},
      {"checkpoint_format", format},
      {"format", format},
      {"pack_dtype", "int32"},
      {"meta", {{"quantizer", nlohmann::ordered_json::array({fmt::format("billfish:{}", Version().version)})}}}};
  nlohmann::ordered_json dynamic = nlohmann::ordered_json::object();
  for (const LeftOut& left_out : SummariseLeftOut(modules.plain_linears, modules.quantized)) {
    dynamic["-:" + (left_out.pattern ? left_out.text : "^" + EscapePattern(left_out.text) + "$")] = nlohmann::ordered_json::object();
  }
  if (!dynamic.empty()) config["dynamic"] = std::move(dynamic);
  return config;
}

}  // namespace

const Encoding kGptqEncoding = {QuantLayout::kGptq, CheckScheme, CheckShape, Tensors, Encode, Config};

}  // namespace billfish::checkpoint
