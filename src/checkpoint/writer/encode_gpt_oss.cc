// gpt-oss: MODULE_blocks U8 [E, N, K/32, 16] and MODULE_scales U8 [E, N, K/32]. Byte j of a block holds k = 2j in the low nibble, so
// blocks and scales are the arrays of the plain form.
#include <fmt/format.h>

#include "checkpoint/writer/encoding.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

constexpr int64_t kGroup = 32;

Status CheckScheme(const QuantScheme& scheme) {
  return scheme == schemes::kMxfp4 ? OkStatus() : Status(ErrorCode::kInvalidArgument, "only mxfp4 fits");
}

Status CheckShape(const EncodedShape& shape) { return CheckColumns(shape, kGroup); }

std::vector<OutputTensor> Tensors(const EncodedShape& shape) {
  const int64_t groups = shape.K / kGroup;
  return {{shape.module + "_blocks", DType::kU8, {shape.E, shape.N, groups, kGroup / 2}},
          {shape.module + "_scales", DType::kU8, {shape.E, shape.N, groups}}};
}

Result<std::vector<Bytes>> Encode(const PackedWeight& weight) { return std::vector<Bytes>{weight.parts().codes, weight.parts().scales}; }

nlohmann::ordered_json Config(const WrittenModules&) {
  // The names that transformers leaves unconverted in this architecture; experts are all that is quantised.
  return {{"quant_method", "mxfp4"},
          {"modules_to_not_convert", {"model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"}}};
}

}  // namespace

const Encoding kGptOssEncoding = {QuantLayout::kGptOss, CheckScheme, CheckShape, Tensors, Encode, Config};

}  // namespace billfish::checkpoint
