// Methods of Python's str, list and dict, and of Jinja's loop.
#pragma once

#include <string_view>

#include "tokenizer/jinja/callable.h"

namespace billfish::tokenizer::jinja {

bool HasMethod(const Value& object, std::string_view name);

/// Errors: kInvalidArgument (bad arguments), kUnsupported (no such method, or one that changes its object, which Jinja's sandbox
/// forbids).
Result<Value> CallMethod(Interpreter& interpreter, const Value& object, std::string_view name, const Arguments& arguments);

using MethodFunction = Result<Value> (*)(Interpreter&, const Value& object, const Arguments& arguments);

/// Methods of str; nullptr if there is no such method.
MethodFunction FindTextMethod(std::string_view name);

}  // namespace billfish::tokenizer::jinja
