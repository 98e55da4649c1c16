#include "model/config_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace billfish::model {

const nlohmann::json& ConfigReader::Get(const char* key) const {
  static const nlohmann::json null;
  const auto it = json_.find(key);
  return it == json_.end() ? null : *it;
}

Status ConfigReader::Wrong(const char* key, std::string_view expected) const {
  const nlohmann::json& value = Get(key);
  std::string found = value.is_null() ? "missing" : value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (found.size() > 80) found = found.substr(0, 80) + "...";
  return {ErrorCode::kCorruptFile, fmt::format("{}: \"{}\" is {}; it must be {}", file_, key, found, expected)};
}

Result<int64_t> ConfigReader::Int(const char* key, int64_t least, std::optional<int64_t> fallback) const {
  const nlohmann::json& value = Get(key);
  if (value.is_null() && fallback) return *fallback;
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= static_cast<uint64_t>(kMost) : value.is_number_integer();
  if (!fits || value.get<int64_t>() < least) return Wrong(key, fmt::format("an integer from {} to {}", least, kMost));
  return value.get<int64_t>();
}

Result<double> ConfigReader::Number(const char* key, std::optional<double> fallback) const {
  const nlohmann::json& value = Get(key);
  if (value.is_null() && fallback) return *fallback;
  if (!value.is_number() || !std::isfinite(value.get<double>())) return Wrong(key, "a finite number");
  return value.get<double>();
}

Result<bool> ConfigReader::Bool(const char* key, bool fallback) const {
  const nlohmann::json& value = Get(key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) return Wrong(key, "true or false");
  return value.get<bool>();
}

Result<std::string> ConfigReader::Text(const char* key, const std::string& fallback) const {
  const nlohmann::json& value = Get(key);
  if (value.is_null()) return fallback;
  if (!value.is_string()) return Wrong(key, "text");
  return value.get<std::string>();
}

}  // namespace billfish::model
