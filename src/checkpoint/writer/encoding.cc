#include "checkpoint/writer/encoding.h"

#include <fmt/format.h>

namespace billfish::checkpoint {
namespace {

constexpr const Encoding* kEncodings[] = {&kCompressedTensorsEncoding, &kGptqEncoding, &kGptOssEncoding};

std::string_view HeldSchemes(QuantLayout layout) {
  switch (layout) {
    case QuantLayout::kCompressedTensors:
      return "int4 (any group, symmetric or not), nvfp4, mxfp4, fp8-tensor, fp8-channel and fp8-block128";
    case QuantLayout::kGptq:
      return "int4 (any group, symmetric or not)";
    case QuantLayout::kGptOss:
      return "mxfp4";
  }
  return "";
}

}  // namespace

const Encoding& EncodingOf(QuantLayout layout) {
  for (const Encoding* encoding : kEncodings) {
    if (encoding->layout == layout) return *encoding;
  }
  return kCompressedTensorsEncoding;
}

QuantScheme StoredScheme(QuantLayout layout, QuantScheme scheme) {
  if (layout == QuantLayout::kGptq && scheme.codes == CodeBook::kInt4) scheme.scale = DType::kF16;
  return scheme;
}

Status SchemeError(QuantLayout layout, const QuantScheme& scheme) {
  std::string others;
  for (const Encoding* encoding : kEncodings) {
    if (encoding->layout != layout && encoding->check_scheme(scheme).ok()) {
      others += fmt::format("{}{}", others.empty() ? "; layouts that hold it: " : ", ", QuantLayoutName(encoding->layout));
    }
  }
  if (others.empty() && !scheme.has_scale()) others = "; plain numbers are written by dequantising";
  return {ErrorCode::kInvalidArgument, fmt::format("{} was asked for in the layout {}, which holds {}{}", scheme.Name(),
                                                   QuantLayoutName(layout), HeldSchemes(layout), others)};
}

Status CheckColumns(const EncodedShape& shape, int64_t multiple) {
  if (multiple <= 1 || shape.K % multiple == 0) return OkStatus();
  return {ErrorCode::kInvalidArgument,
          fmt::format("{} has K = {}, which {} cannot hold: it must be a multiple of {}; choose a scheme with a smaller group, or ignore "
                      "the module",
                      shape.module, shape.K, shape.scheme.Name(), multiple)};
}

}  // namespace billfish::checkpoint
