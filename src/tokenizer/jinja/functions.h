// The functions that every template can call.
#pragma once

#include "tokenizer/jinja/callable.h"

namespace billfish::tokenizer::jinja {

/// range, dict, namespace, raise_exception, strftime_now.
void DefineFunctions(Runtime& runtime, Scope& scope);

}  // namespace billfish::tokenizer::jinja
