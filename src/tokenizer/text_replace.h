// The "pattern" and "content" fields that Replace normalizers, Replace decoders and Split pre-tokenizers share.
#pragma once

#include <string>
#include <string_view>

#include "billfish/status.h"
#include "tokenizer/json_object.h"
#include "tokenizer/regex.h"

namespace billfish::tokenizer {

/// {"String": "..."} or {"Regex": "..."} in field "pattern".
Result<Regex> ReadPattern(JsonObject& object);

/// Replaces every match by a fixed text.
class TextReplace {
 public:
  /// From fields "pattern" and "content".
  static Result<TextReplace> FromJson(JsonObject& object);
  Status Apply(std::string& text) const;

 private:
  TextReplace(Regex regex, std::string content) : regex_(std::move(regex)), content_(std::move(content)) {}

  Regex regex_;
  std::string content_;
};

}  // namespace billfish::tokenizer
