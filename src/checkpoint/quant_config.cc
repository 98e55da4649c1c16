#include "checkpoint/quant_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "checkpoint/mapped_file.h"
#include "checkpoint/pattern.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxConfigBytes = 16u << 20;
constexpr int kMaxDepth = 256;  // copying and printing JSON takes stack for every level
constexpr std::string_view kReadable =
    "billfish reads gptq, awq (gemm), compressed-tensors, modelopt (NVFP4, FP8), mxfp4 (gpt-oss) and fp8 (blocks, channels, tensors)";

Status Wrong(const std::string& source, std::string_view key, std::string_view expected) {
  return {ErrorCode::kCorruptFile, fmt::format("{}: \"{}\" must be {}", source, key, expected)};
}

Status Unsupported(const std::string& source, std::string_view what) {
  return {ErrorCode::kUnsupported, fmt::format("{}: {}; {}", source, what, kReadable)};
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// A value under one of several names; null if none is there.
const Json& Get(const Json& object, std::initializer_list<const char*> names) {
  static const Json null;
  if (!object.is_object()) return null;
  for (const char* name : names) {
    const auto it = object.find(name);
    if (it != object.end() && !it->is_null()) return *it;
  }
  return null;
}

std::string Text(const Json& value) { return value.is_string() ? value.get<std::string>() : std::string(); }

Status ReadGptqSettings(const Json& json, const std::string& source, GptqSettings& settings) {
  if (const Json& bits = Get(json, {"bits", "w_bit", "wbits"}); !bits.is_null()) {
    if (!bits.is_number_integer()) return Wrong(source, "bits", "an integer");
    settings.bits = bits.get<int64_t>();
  }
  if (const Json& group = Get(json, {"group_size", "q_group_size"}); !group.is_null()) {
    if (!group.is_number_integer()) return Wrong(source, "group_size", "an integer");
    settings.group_size = group.get<int64_t>();
    if (*settings.group_size != -1 && *settings.group_size < 1) return Wrong(source, "group_size", "-1 or at least 1");
  }
  if (const Json& sym = Get(json, {"sym"}); !sym.is_null()) {
    if (!sym.is_boolean()) return Wrong(source, "sym", "true or false");
    settings.sym = sym.get<bool>();
  }
  if (const Json& desc = Get(json, {"desc_act"}); desc.is_boolean()) settings.desc_act = desc.get<bool>();
  return OkStatus();
}

bool NamesGptqModel(const Json& meta) {
  const Json& quantizer = Get(meta, {"quantizer"});
  const auto names = [](const Json& v) { return Lower(Text(v)).rfind("gptqmodel", 0) == 0; };
  if (quantizer.is_array()) return std::any_of(quantizer.begin(), quantizer.end(), names);
  return names(quantizer);
}

Status ReadGptq(const Json& json, QuantConfig& config) {
  BILLFISH_RETURN_IF_ERROR(ReadGptqSettings(json, config.source, config.gptq));
  const std::string format = Lower(Text(Get(json, {"checkpoint_format", "format", "version"})));
  if (format == "marlin" || format == "bitblas" || Get(json, {"is_marlin_format"}) == true) {
    return Unsupported(config.source, fmt::format("GPTQ weights serialised as \"{}\" are not read", format.empty() ? "marlin" : format));
  }
  config.gptq_v2 = format == "gptq_v2" || format == "gptq_p";
  config.gptq_whole_word_zeros = NamesGptqModel(Get(json, {"meta"}));
  const Json& dynamic = Get(json, {"dynamic"});
  if (dynamic.is_object()) {
    for (const auto& [pattern, settings] : dynamic.items()) {
      if (pattern.rfind("-:", 0) == 0) continue;  // not quantised: the tensors show it
      config.gptq_dynamic.push_back({pattern.rfind("+:", 0) == 0 ? pattern.substr(2) : pattern, settings});
    }
  }
  return OkStatus();
}

Status ReadAwq(const Json& json, QuantConfig& config) {
  BILLFISH_RETURN_IF_ERROR(ReadGptqSettings(json, config.source, config.gptq));
  const std::string version = Lower(Text(Get(json, {"version"})));
  if (!version.empty() && version != "gemm") {
    return Unsupported(config.source,
                       fmt::format("AWQ version \"{}\" is another arrangement of the bits and not read; only gemm is", version));
  }
  return OkStatus();
}

Status ReadCompressedTensors(const Json& json, QuantConfig& config) {
  config.format = Lower(Text(Get(json, {"format"})));
  if (!Get(json, {"transform_config"}).is_null() && !Get(json, {"transform_config"}).empty()) {
    return Unsupported(config.source,
                       "\"transform_config\" rotates the weights, and decoding without the inverse would give wrong numbers");
  }
  const std::string sparsity = Lower(Text(Get(Get(json, {"sparsity_config"}), {"format"})));
  if (!sparsity.empty() && sparsity != "dense") {
    return Unsupported(config.source, fmt::format("sparse compressed-tensors (\"{}\") are not read", sparsity));
  }
  for (const std::string_view format : {"marlin-24", "marlin_24", "int-quantized", "naive-quantized", "mxfp8-quantized"}) {
    if (config.format == format) return Unsupported(config.source, fmt::format("the compressed-tensors format \"{}\" is not read", format));
  }
  const Json& groups = Get(json, {"config_groups"});
  if (!groups.is_object()) return OkStatus();
  for (const auto& [name, group] : groups.items()) {
    const Json& weights = Get(group, {"weights"});
    if (Text(Get(weights, {"strategy"})) != "block") continue;
    const Json& block = Get(weights, {"block_structure"});
    if (!block.is_array() || block.size() != 2 || !block[0].is_number_unsigned() || !block[1].is_number_unsigned()) {
      return Wrong(config.source, name + ".weights.block_structure", "two positive integers");
    }
    config.block = {block[0].get<int64_t>(), block[1].get<int64_t>()};
  }
  return OkStatus();
}

Status ReadModelOpt(const Json& json, QuantConfig& config) {
  const std::string algorithm = Lower(Text(Get(json, {"quant_algo"})));
  constexpr std::array<std::string_view, 6> kReadableAlgorithms = {"", "nvfp4", "w4a16_nvfp4", "fp8", "fp8_pb_wo", "mixed_precision"};
  if (std::find(kReadableAlgorithms.begin(), kReadableAlgorithms.end(), algorithm) == kReadableAlgorithms.end()) {
    return Unsupported(config.source, fmt::format("the ModelOpt algorithm \"{}\" is not read", Text(Get(json, {"quant_algo"}))));
  }
  if (algorithm == "fp8_pb_wo") config.block = {128, 128};
  return OkStatus();
}

Status ReadFp8(const Json& json, QuantConfig& config) {
  const Json& block = Get(json, {"weight_block_size"});
  if (block.is_null()) return OkStatus();
  if (!block.is_array() || block.size() != 2 || !block[0].is_number_unsigned() || !block[1].is_number_unsigned() || block[0] == 0 ||
      block[1] == 0) {
    return Wrong(config.source, "weight_block_size", "two positive integers");
  }
  config.block = {block[0].get<int64_t>(), block[1].get<int64_t>()};
  return OkStatus();
}

struct MethodRow {
  std::string_view name;
  Method method;
  Status (*read)(const Json&, QuantConfig&);
};

Status ReadNothing(const Json&, QuantConfig&) { return OkStatus(); }

constexpr MethodRow kMethods[] = {
    {"gptq", Method::kGptq, ReadGptq},
    {"awq", Method::kAwq, ReadAwq},
    {"compressed-tensors", Method::kCompressedTensors, ReadCompressedTensors},
    {"modelopt", Method::kModelOpt, ReadModelOpt},
    {"modelopt_fp4", Method::kModelOpt, ReadModelOpt},
    {"mxfp4", Method::kMxfp4, ReadNothing},
    {"fp8", Method::kFp8, ReadFp8},
};

Status ReadMethod(const Json& json, std::string method, QuantConfig& config) {
  if (!json.is_object()) return Wrong(config.source, "quantization_config", "an object");
  config.method_name = method;
  method = Lower(method);
  if (method == "auto-round") {  // the packing decides which of two known layouts it is
    method = Lower(Text(Get(json, {"packing_format"}))).find("awq") != std::string::npos ? "awq" : "gptq";
  }
  for (const MethodRow& row : kMethods) {
    if (row.name != method) continue;
    config.method = row.method;
    return row.read(json, config);
  }
  return Unsupported(config.source, fmt::format("the quantisation method \"{}\" is not read", config.method_name));
}

// Of brackets outside strings; what is no JSON gets some number or other.
int Depth(const std::string& text) {
  int depth = 0, deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

Result<Json> ReadJsonFile(const std::filesystem::path& path) {
  BILLFISH_ASSIGN_OR_RETURN(const std::string text, ReadText(path, kMaxConfigBytes));
  return ParseJson(text, path.filename().string());
}

}  // namespace

Result<GptqSettings> QuantConfig::GptqFor(const std::string& module) const {
  GptqSettings settings = gptq;
  for (const GptqOverride& entry : gptq_dynamic) {
    BILLFISH_ASSIGN_OR_RETURN(const bool matches, MatchesAtStart(entry.pattern, module));
    if (!matches) continue;
    BILLFISH_RETURN_IF_ERROR(ReadGptqSettings(entry.settings, source, settings));
    break;
  }
  return settings;
}

Result<Json> ParseJson(const std::string& text, const std::string& file) {
  if (const int depth = Depth(text); depth > kMaxDepth) {
    return Status(ErrorCode::kCorruptFile, fmt::format("{} nests {} levels deep; at most {} are read", file, depth, kMaxDepth));
  }
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return Status(ErrorCode::kCorruptFile, fmt::format("{} is not valid JSON", file));
  if (!json.is_object()) return Status(ErrorCode::kCorruptFile, fmt::format("{} must hold a JSON object", file));
  return json;
}

Result<QuantConfig> ReadQuantConfig(const std::filesystem::path& folder, const Json& config) {
  QuantConfig result;
  const Json* found = &Get(config, {"quantization_config"});
  if (found->is_null()) found = &Get(Get(config, {"text_config"}), {"quantization_config"});
  if (!found->is_null()) {
    result.source = "config.json";
    const std::string method = Text(Get(*found, {"quant_method", "method"}));
    // Some exporters leave the method out and name the algorithm alone.
    BILLFISH_RETURN_IF_ERROR(ReadMethod(*found, method.empty() && found->contains("quant_algo") ? "modelopt" : method, result));
    return result;
  }
  struct Legacy {
    const char* file;
    const char* method;
    const char* inner;
  };
  for (const Legacy& legacy : {Legacy{"hf_quant_config.json", "modelopt", "quantization"}, Legacy{"quantize_config.json", "gptq", nullptr},
                               Legacy{"quant_config.json", "awq", nullptr}}) {
    Result<Json> json = ReadJsonFile(folder / legacy.file);
    if (!json.ok()) {
      if (json.error().code() == ErrorCode::kNotFound) continue;
      return json.error();
    }
    result.source = legacy.file;
    BILLFISH_RETURN_IF_ERROR(ReadMethod(legacy.inner == nullptr ? *json : Get(*json, {legacy.inner}), legacy.method, result));
    return result;
  }
  return result;
}

}  // namespace billfish::checkpoint
