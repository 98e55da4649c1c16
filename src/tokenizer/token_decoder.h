// TokenDecoder: token texts back to the text they stand for.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "billfish/status.h"
#include "tokenizer/text_replace.h"

namespace billfish::tokenizer {

/// A chain of steps over the list of tokens; the results are joined. Immutable.
class TokenDecoder {
 public:
  /// The "decoder" field: ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, BPEDecoder or a Sequence of these. A null value
  /// joins the tokens with spaces. Errors: kUnsupported (another type), kCorruptFile.
  static Result<TokenDecoder> FromJson(const nlohmann::json& value);

  /// Errors: kInvalidArgument (see Regex::Scanner).
  Result<std::string> Decode(std::vector<std::string> tokens) const;

  /// Only ByteLevel: the text is the bytes of the tokens one after the other.
  bool is_byte_level() const { return steps_.size() == 1 && std::holds_alternative<ByteLevel>(steps_[0]); }
  /// No decoder: tokens are joined with spaces.
  bool is_joined_with_spaces() const { return joined_with_spaces_; }

 private:
  struct ByteLevel {};
  struct ByteFallback {};
  struct Fuse {};
  struct Strip {
    char32_t character;
    size_t start, stop;
  };
  struct Metaspace {
    char32_t replacement;
    bool drop_first;  ///< the first token loses its replacement characters
  };
  struct BpeSuffix {
    std::string suffix;
  };
  using Tokens = std::vector<std::string>;
  using Step = std::variant<ByteLevel, ByteFallback, Fuse, Strip, Metaspace, BpeSuffix, TextReplace>;

  static Status Run(ByteLevel, Tokens& tokens);
  static Status Run(ByteFallback, Tokens& tokens);
  static Status Run(Fuse, Tokens& tokens);
  static Status Run(const Strip& strip, Tokens& tokens);
  static Status Run(const Metaspace& metaspace, Tokens& tokens);
  static Status Run(const BpeSuffix& suffix, Tokens& tokens);
  static Status Run(const TextReplace& replace, Tokens& tokens);

  Status Add(JsonObject& object, const std::string& type);

  std::vector<Step> steps_;
  bool joined_with_spaces_ = false;
};

}  // namespace billfish::tokenizer
