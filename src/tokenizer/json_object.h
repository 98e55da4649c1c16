// Typed reading of one JSON object: the first field of the wrong type becomes the error, so that parsers read like a list of fields.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "billfish/status.h"

namespace billfish::tokenizer {

/// Text -> value without exceptions. kCorruptFile "`where` is not valid JSON near byte N".
Result<nlohmann::json> ParseJson(std::string_view text, std::string_view where);

class JsonObject {
 public:
  /// `where` names the object in messages, for example "pre_tokenizer". `value` must outlive this.
  JsonObject(const nlohmann::json& value, std::string where);

  /// The field, or nullptr if it is absent or null.
  const nlohmann::json* Find(std::string_view key) const;

  /// Absent or null gives the fallback; a value of another type gives the fallback and sets status().
  bool Bool(std::string_view key, bool fallback);
  int64_t Int(std::string_view key, int64_t fallback);
  std::string String(std::string_view key, std::string_view fallback = {});

  /// A field that must be there; otherwise status() is set and an empty value comes back.
  std::string RequiredString(std::string_view key);
  /// A string of exactly one character.
  char32_t RequiredCharacter(std::string_view key);
  int64_t RequiredInt(std::string_view key);
  const nlohmann::json& RequiredArray(std::string_view key);
  const nlohmann::json& RequiredObject(std::string_view key);

  const std::string& where() const { return where_; }
  /// The first failure; kCorruptFile.
  const Status& status() const { return status_; }

 private:
  void Fail(std::string_view key, std::string_view expected, const nlohmann::json* found);

  const nlohmann::json& value_;
  std::string where_;
  Status status_;
};

}  // namespace billfish::tokenizer
