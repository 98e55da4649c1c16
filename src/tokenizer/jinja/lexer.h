// Splits a template into text and the tokens of its tags, with Jinja's whitespace control (trim_blocks and lstrip_blocks on).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"

namespace billfish::tokenizer::jinja {

struct Token {
  enum class Kind : uint8_t {
    kText,           ///< outside of tags
    kBlockBegin,     ///< {%
    kBlockEnd,       ///< %}
    kVariableBegin,  ///< {{
    kVariableEnd,    ///< }}
    kName,
    kString,  ///< text: unescaped
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind;
  std::string text;
  int line;
};

/// The tokens of a template, closed by one kEnd. Errors: kCorruptFile with the line.
Result<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace billfish::tokenizer::jinja
