#include "billfish/scheme.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace billfish {
namespace {

struct NamedScheme {
  std::string_view name;
  QuantScheme scheme;
};

constexpr std::array<NamedScheme, 16> kNamed = {{{"mxfp4", schemes::kMxfp4},
                                                 {"nvfp4", schemes::kNvfp4},
                                                 {"int4-g32", schemes::Int4(32, true)},
                                                 {"int4-g64", schemes::Int4(64, true)},
                                                 {"int4-g128", schemes::Int4(128, true)},
                                                 {"int4-channel", schemes::Int4(0, true)},
                                                 {"int4-g32-asym", schemes::Int4(32, false)},
                                                 {"int4-g64-asym", schemes::Int4(64, false)},
                                                 {"int4-g128-asym", schemes::Int4(128, false)},
                                                 {"int4-channel-asym", schemes::Int4(0, false)},
                                                 {"fp8-tensor", schemes::kFp8Tensor},
                                                 {"fp8-channel", schemes::kFp8Channel},
                                                 {"fp8-block128", schemes::kFp8Block128},
                                                 {"bf16", schemes::kBf16},
                                                 {"f16", schemes::kF16},
                                                 {"f32", schemes::kF32}}};

constexpr auto kNames = [] {
  std::array<std::string_view, kNamed.size()> names{};
  for (size_t i = 0; i < names.size(); ++i) names[i] = kNamed[i].name;
  return names;
}();

// How far one scale reaches: "tensor", "channel", "g32", "block128", "block32x64".
std::string Reach(const QuantScheme& scheme) {
  if (scheme.group_rows == 1) return scheme.group == 0 ? "channel" : fmt::format("g{}", scheme.group);
  if (scheme.group_rows == 0 && scheme.group == 0) return "tensor";
  if (scheme.group_rows == scheme.group) return fmt::format("block{}", scheme.group);
  return fmt::format("block{}x{}", scheme.group_rows, scheme.group);
}

std::string LowerName(DType dtype) {
  std::string name(DTypeName(dtype));
  std::transform(name.begin(), name.end(), name.begin(), [](char c) { return static_cast<char>(std::tolower(c)); });
  return name;
}

}  // namespace

int CodeBits(CodeBook codes) {
  switch (codes) {
    case CodeBook::kInt4:
    case CodeBook::kE2M1:
      return 4;
    case CodeBook::kE4M3:
      return 8;
    case CodeBook::kBF16:
    case CodeBook::kF16:
      return 16;
    case CodeBook::kF32:
      break;
  }
  return 32;
}

std::string QuantScheme::Name() const {
  const char* row = row_scale ? "-rowscale" : "";
  switch (codes) {
    case CodeBook::kInt4:
      return fmt::format("int4-{}{}{}", Reach(*this), zero == ZeroPoint::kPerGroup ? "-asym" : "", row);
    case CodeBook::kE2M1:
      if (group == 32 && group_rows == 1 && scale == DType::kF8E8M0) return fmt::format("mxfp4{}", row);
      if (group == 16 && group_rows == 1 && scale == DType::kF8E4M3) return row_scale ? "nvfp4" : "nvfp4-noglobal";
      return fmt::format("fp4-{}-{}{}", Reach(*this), LowerName(scale), row);
    case CodeBook::kE4M3:
      return fmt::format("fp8-{}{}", Reach(*this), row);
    case CodeBook::kBF16:
      return "bf16";
    case CodeBook::kF16:
      return "f16";
    case CodeBook::kF32:
      break;
  }
  return "f32";
}

Result<QuantScheme> SchemeByName(std::string_view name) {
  for (const NamedScheme& named : kNamed) {
    if (named.name == name) return named.scheme;
  }
  return Status(ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not a scheme; use one of {}", name, fmt::join(kNames, ", ")));
}

std::span<const std::string_view> SchemeNames() { return kNames; }

}  // namespace billfish
