// Normalizer: what tokenizer.json does to a text before it is cut.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "billfish/status.h"
#include "tokenizer/text_replace.h"

namespace billfish::tokenizer {

/// A sequence of steps. Immutable.
class Normalizer {
 public:
  /// The "normalizer" field: NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, ByteLevel or a Sequence of these. A null value
  /// does nothing. Errors: kUnsupported (another type), kCorruptFile.
  static Result<Normalizer> FromJson(const nlohmann::json& value);

  /// `text` is valid UTF-8 and stays so. Errors: kInvalidArgument (see Regex::Scanner), kOutOfMemory.
  Status Apply(std::string& text) const;
  bool empty() const { return steps_.empty(); }

 private:
  struct UnicodeForm {
    bool compose;
    bool compatibility;
  };
  struct Lowercase {};
  struct ByteLevel {};
  struct Prepend {
    std::string text;
  };
  struct Strip {
    bool left;
    bool right;
  };
  using Step = std::variant<UnicodeForm, Lowercase, ByteLevel, Prepend, Strip, TextReplace>;

  static Status Run(const UnicodeForm& form, std::string& text);
  static Status Run(Lowercase, std::string& text);
  static Status Run(ByteLevel, std::string& text);
  static Status Run(const Prepend& prepend, std::string& text);
  static Status Run(const Strip& strip, std::string& text);
  static Status Run(const TextReplace& replace, std::string& text) { return replace.Apply(text); }

  Status Add(JsonObject& object, const std::string& type);

  std::vector<Step> steps_;
};

}  // namespace billfish::tokenizer
