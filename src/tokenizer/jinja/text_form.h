// Values as text: str(), repr() and JSON, and text as values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "billfish/status.h"
#include "tokenizer/jinja/value.h"

namespace billfish::tokenizer::jinja {

/// Python's str(); undefined is empty.
Result<std::string> ToText(Runtime& runtime, const Value& value);
/// Python's repr().
Result<std::string> ToRepr(Runtime& runtime, const Value& value);
/// Python's repr() of a float.
std::string FloatText(double number);

struct JsonStyle {
  std::optional<std::string> indent;  ///< per level; with it, items stand on lines of their own
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ensure_ascii = false;
  bool sort_keys = false;
};

/// Python's json.dumps. Errors: kInvalidArgument (a value that JSON does not have).
Result<std::string> ToJson(Runtime& runtime, const Value& value, const JsonStyle& style);

/// Objects keep their order. Errors: kInvalidArgument "`what` is not valid JSON", kUnsupported (limits).
Result<Value> FromJson(Runtime& runtime, std::string_view json, std::string_view what);

}  // namespace billfish::tokenizer::jinja
