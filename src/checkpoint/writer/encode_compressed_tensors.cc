// compressed-tensors: pack-quantized (int4), nvfp4-pack-quantized, mxfp4-pack-quantized, float-quantized (E4M3). The reading side
// describes the bits: read_pack_quantized.cc, read_fp4.cc, read_fp8.cc.
#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "checkpoint/writer/encoding.h"
#include "checkpoint/writer/left_out.h"
#include "checkpoint/writer/nibble_words.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

enum class Format { kNone, kInt4, kNvfp4, kMxfp4, kFp8 };

Format FormatOf(const QuantScheme& scheme) {
  const bool float_scale = scheme.scale == DType::kBF16 || scheme.scale == DType::kF16 || scheme.scale == DType::kF32;
  if (scheme.codes == CodeBook::kInt4 && scheme.group_rows == 1 && float_scale && !scheme.row_scale) return Format::kInt4;
  if (scheme == schemes::kNvfp4) return Format::kNvfp4;
  if (scheme == schemes::kMxfp4) return Format::kMxfp4;
  if (scheme == schemes::kFp8Tensor || scheme == schemes::kFp8Channel) return Format::kFp8;
  const bool blocks = scheme.group_rows > 1 && scheme.group > 1;
  if (scheme.codes == CodeBook::kE4M3 && blocks && scheme.scale == DType::kF32 && !scheme.row_scale) return Format::kFp8;
  return Format::kNone;
}

Status CheckScheme(const QuantScheme& scheme) {
  return FormatOf(scheme) != Format::kNone ? OkStatus() : Status(ErrorCode::kInvalidArgument, "no format fits");
}

Status CheckShape(const EncodedShape& shape) {
  if (shape.E != 1) {
    return {ErrorCode::kUnsupported,
            fmt::format("{} stacks {} experts in one tensor; compressed-tensors holds one module per expert", shape.module, shape.E)};
  }
  // Blocks of FP8 may be partial at the edges; groups of four bits may not.
  return FormatOf(shape.scheme) == Format::kFp8 ? OkStatus() : CheckColumns(shape, shape.scheme.group);
}

int64_t Blocks(int64_t count, int64_t block) { return block == 0 ? 1 : (count - 1) / block + 1; }

std::vector<OutputTensor> Tensors(const EncodedShape& shape) {
  const int64_t N = shape.N, K = shape.K, groups = Blocks(K, shape.scheme.group);
  const std::string packed = shape.module + ".weight_packed", scale = shape.module + ".weight_scale";
  switch (FormatOf(shape.scheme)) {
    case Format::kInt4: {
      std::vector<OutputTensor> tensors = {{packed, DType::kI32, {N, (K + 7) / 8}},
                                           {scale, shape.scheme.scale, {N, groups}},
                                           {shape.module + ".weight_shape", DType::kI64, {2}}};
      if (shape.scheme.zero == ZeroPoint::kPerGroup) {
        tensors.push_back({shape.module + ".weight_zero_point", DType::kI32, {(N + 7) / 8, groups}});
      }
      return tensors;
    }
    case Format::kNvfp4:
      return {{packed, DType::kU8, {N, K / 2}},
              {scale, DType::kF8E4M3, {N, groups}},
              {shape.module + ".weight_global_scale", DType::kF32, {1}}};
    case Format::kMxfp4:
      return {{packed, DType::kU8, {N, K / 2}}, {scale, DType::kU8, {N, groups}}};
    case Format::kFp8:
    case Format::kNone:
      break;
  }
  const int64_t rows = Blocks(N, shape.scheme.group_rows);
  const std::vector<int64_t> scales = shape.scheme == schemes::kFp8Tensor ? std::vector<int64_t>{1} : std::vector<int64_t>{rows, groups};
  return {{shape.module + ".weight", DType::kF8E4M3, {N, K}}, {scale, DType::kF32, scales}};
}

// Rows of nibbles, each padded to whole words.
Bytes PackedRows(const PackedWeight& weight) {
  const auto stored = static_cast<size_t>((weight.K() + 7) / 8 * 4), row = static_cast<size_t>(weight.row_bytes());
  if (stored == row) return weight.parts().codes;
  std::vector<std::byte> bytes(static_cast<size_t>(weight.N()) * stored);
  for (size_t n = 0; n < static_cast<size_t>(weight.N()); ++n) {
    std::memcpy(bytes.data() + n * stored, weight.parts().codes.data() + n * row, row);
  }
  return Bytes::Own(std::move(bytes));
}

// The divisor whose fp32 reciprocal is the weight's one global factor.
Result<float> GlobalDivisor(const PackedWeight& weight) {
  const std::vector<float>& factors = weight.parts().row_scale;
  for (const float factor : factors) {
    if (factor == factors.front()) continue;
    return Status(ErrorCode::kUnsupported,
                  fmt::format("its rows have global scales {} and {}; compressed-tensors holds one per module", factors.front(), factor));
  }
  float divisor = 1.0f / factors.front();
  for (const float candidate : {divisor, std::nextafter(divisor, 0.0f), std::nextafter(divisor, INFINITY)}) {
    if (std::isfinite(candidate) && 1.0f / candidate == factors.front()) return candidate;
  }
  return Status(
      ErrorCode::kUnsupported,
      fmt::format("its global scale {} is no reciprocal of an fp32 number, and compressed-tensors stores the reciprocal; quantise "
                  "again to get one that is",
                  factors.front()));
}

Result<std::vector<Bytes>> Encode(const PackedWeight& weight) {
  const WeightParts& parts = weight.parts();
  switch (FormatOf(weight.scheme())) {
    case Format::kInt4: {
      std::vector<Bytes> bytes = {PackedRows(weight), parts.scales, Bytes::Own(std::vector<int64_t>{weight.N(), weight.K()})};
      if (weight.scheme().zero == ZeroPoint::kPerGroup) {
        const std::vector<uint8_t> zeros = ZeroPoints(weight);
        if (FirstWideZero(zeros) >= 0) {
          return Status(ErrorCode::kUnsupported, "it has a zero point of 16, which the 4 bits of compressed-tensors do not hold");
        }
        bytes.push_back(Bytes::Own(PackAlongRows(zeros, weight.N(), weight.groups())));
      }
      return bytes;
    }
    case Format::kNvfp4: {
      BILLFISH_ASSIGN_OR_RETURN(const float divisor, GlobalDivisor(weight));
      return std::vector<Bytes>{parts.codes, parts.scales, Bytes::Own(std::vector<float>{divisor})};
    }
    case Format::kMxfp4:
    case Format::kFp8:
      return std::vector<Bytes>{parts.codes, parts.scales};
    case Format::kNone:
      break;
  }
  return SchemeError(QuantLayout::kCompressedTensors, weight.scheme());
}

nlohmann::ordered_json Config(const WrittenModules& modules) {
  const QuantScheme& scheme = modules.scheme;
  nlohmann::ordered_json weights = {{"num_bits", CodeBits(scheme.codes)},
                                    {"type", scheme.codes == CodeBook::kInt4 ? "int" : "float"},
                                    {"symmetric", scheme.zero == ZeroPoint::kNone},
                                    {"dynamic", false}};
  const char* format = "float-quantized";
  const Format kind = FormatOf(scheme);
  if (kind == Format::kInt4) {
    format = "pack-quantized";
    weights["strategy"] = scheme.group == 0 ? "channel" : "group";
    if (scheme.group != 0) weights["group_size"] = scheme.group;
  } else if (kind == Format::kNvfp4) {
    format = "nvfp4-pack-quantized";
    weights.update({{"strategy", "tensor_group"}, {"group_size", scheme.group}, {"scale_dtype", "torch.float8_e4m3fn"}});
  } else if (kind == Format::kMxfp4) {
    format = "mxfp4-pack-quantized";
    weights.update({{"strategy", "group"}, {"group_size", scheme.group}, {"scale_dtype", "torch.uint8"}});
  } else if (scheme == schemes::kFp8Tensor) {
    weights["strategy"] = "tensor";
  } else if (scheme == schemes::kFp8Channel) {
    weights["strategy"] = "channel";
  } else {
    weights["strategy"] = "block";
    weights["block_structure"] = {scheme.group_rows, scheme.group};
  }
  nlohmann::ordered_json ignore = nlohmann::ordered_json::array();
  for (const LeftOut& left_out : SummariseLeftOut(modules.plain_linears, modules.quantized)) {
    ignore.push_back(left_out.pattern ? "re:" + left_out.text : left_out.text);
  }
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"config_groups",
           {{"group_0", {{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", nullptr}, {"output_activations", nullptr}}}}},
          {"ignore", ignore}};
}

}  // namespace

const Encoding kCompressedTensorsEncoding = {QuantLayout::kCompressedTensors, CheckScheme, CheckShape, Tensors, Encode, Config};

}  // namespace billfish::checkpoint
