// Tokens -> syntax tree, with Jinja2's grammar and precedences.
#pragma once

#include <string_view>

#include "billfish/status.h"
#include "tokenizer/jinja/ast.h"

namespace billfish::tokenizer::jinja {

/// Errors: kCorruptFile (syntax; names the line), kUnsupported (a statement that chat templates do not use, such as include).
Result<Block> ParseTemplate(std::string_view source);

}  // namespace billfish::tokenizer::jinja
