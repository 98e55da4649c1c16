// Jinja's tests: "x is defined".
#pragma once

#include <string_view>

#include "tokenizer/jinja/callable.h"

namespace billfish::tokenizer::jinja {

using TestFunction = Result<bool> (*)(Interpreter&, const Value& input, const Arguments& arguments);

/// nullptr if there is no such test.
TestFunction FindTest(std::string_view name);

}  // namespace billfish::tokenizer::jinja
