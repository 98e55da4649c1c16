// Typed access to config.json: every error names the key, what was found and what is allowed.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "billfish/status.h"

namespace billfish::model {

class ConfigReader {
 public:
  explicit ConfigReader(const nlohmann::json& json, std::string file = "config.json") : json_(json), file_(std::move(file)) {}

  /// The value under `key`, or null if it is absent or null.
  const nlohmann::json& Get(const char* key) const;
  bool Has(const char* key) const { return !Get(key).is_null(); }

  /// An integer from `least` to 2^31 - 1. Without a fallback the key is required.
  Result<int64_t> Int(const char* key, int64_t least, std::optional<int64_t> fallback = std::nullopt) const;
  Result<double> Number(const char* key, std::optional<double> fallback = std::nullopt) const;
  Result<bool> Bool(const char* key, bool fallback) const;
  Result<std::string> Text(const char* key, const std::string& fallback) const;

  /// kCorruptFile: "config.json: "key" is FOUND; EXPECTED".
  Status Wrong(const char* key, std::string_view expected) const;

 private:
  const nlohmann::json& json_;
  std::string file_;
};

}  // namespace billfish::model
