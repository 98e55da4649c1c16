// Jinja's filters: "x | trim".
#pragma once

#include <string_view>

#include "tokenizer/jinja/callable.h"

namespace billfish::tokenizer::jinja {

using FilterFunction = Result<Value> (*)(Interpreter&, const Value& input, const Arguments& arguments);

/// nullptr if there is no such filter.
FilterFunction FindFilter(std::string_view name);

// The halves of the table.
FilterFunction FindTextFilter(std::string_view name);
FilterFunction FindSequenceFilter(std::string_view name);

}  // namespace billfish::tokenizer::jinja
