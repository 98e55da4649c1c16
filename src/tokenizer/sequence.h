// The parts of tokenizer.json (normalizer, pre_tokenizer, post_processor, decoder): each is an object with a type, or a Sequence of others.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "core/status_macros.h"
#include "tokenizer/json_object.h"

namespace billfish::tokenizer {

/// Calls add(value, object, type) -> Status for `value`, or, if it is a Sequence, for every element of its array `parts` in order,
/// Sequences among them likewise. Returns the first failure of add or of what it read from its object; kCorruptFile for more than 16
/// Sequences in one another, before the stack ends.
template <class Add>
Status AddParts(const nlohmann::json& value, std::string where, std::string_view parts, const Add& add, int depth = 0) {
  constexpr int kMaxDepth = 16;
  if (depth > kMaxDepth) return {ErrorCode::kCorruptFile, fmt::format("{} nests more than {} sequences", where, kMaxDepth)};
  JsonObject object(value, std::move(where));
  const std::string type = object.RequiredString("type");
  BILLFISH_RETURN_IF_ERROR(object.status());
  if (type == "Sequence") {
    const nlohmann::json& list = object.RequiredArray(parts);
    BILLFISH_RETURN_IF_ERROR(object.status());
    for (size_t i = 0; i < list.size(); ++i) {
      BILLFISH_RETURN_IF_ERROR(AddParts(list[i], fmt::format("{}[{}]", object.where(), i), parts, add, depth + 1));
    }
    return OkStatus();
  }
  BILLFISH_RETURN_IF_ERROR(add(value, object, type));
  return object.status();
}

}  // namespace billfish::tokenizer
