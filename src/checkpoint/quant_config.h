// What the configuration files of a checkpoint say about its quantisation. The tensors decide; this decides what they mean where the
// bits alone do not (zero point version, symmetric or not, block sizes), and contradictions are errors.
//
// Read in this order, the first that exists counts: quantization_config in config.json (also under text_config),
// hf_quant_config.json (ModelOpt), quantize_config.json (GPTQ), quant_config.json (AWQ).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "billfish/status.h"

namespace billfish::checkpoint {

enum class Method : uint8_t { kNone, kGptq, kAwq, kCompressedTensors, kModelOpt, kMxfp4, kFp8 };

struct GptqSettings {
  int64_t bits = 4;
  std::optional<int64_t> group_size;  ///< -1 = the whole row
  bool sym = false;
  bool desc_act = false;
};

/// `dynamic` of GPTQModel: modules that match get other settings.
struct GptqOverride {
  std::string pattern;  ///< regular expression, anchored at the start
  nlohmann::json settings;
};

struct QuantConfig {
  Method method = Method::kNone;
  std::string method_name;  ///< as written
  std::string source;       ///< file it was read from
  GptqSettings gptq;
  std::vector<GptqOverride> gptq_dynamic;
  bool gptq_v2 = false;                ///< zero points are stored as they are
  bool gptq_whole_word_zeros = false;  ///< v1 zero points were made by subtracting 0x11111111 from the word
  std::string format;                  ///< compressed-tensors format
  std::vector<int64_t> block;          ///< rows, columns of an FP8 block; empty if not given

  /// Settings of one module with its overrides. kUnsupported for an invalid pattern.
  Result<GptqSettings> GptqFor(const std::string& module) const;
};

/// `config` is config.json (null if there is none). Errors: kCorruptFile (invalid JSON, wrong types), kUnsupported (a method or option
/// that would give wrong numbers if ignored; names what can be read).
Result<QuantConfig> ReadQuantConfig(const std::filesystem::path& folder, const nlohmann::json& config);

/// Parses a JSON object; kCorruptFile names `file`.
Result<nlohmann::json> ParseJson(const std::string& text, const std::string& file);

}  // namespace billfish::checkpoint
