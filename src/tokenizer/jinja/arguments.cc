#include "tokenizer/jinja/arguments.h"

#include <fmt/format.h>

#include <algorithm>

namespace billfish::tokenizer::jinja {

Result<BoundArguments> BoundArguments::Bind(std::string_view what, const Arguments& arguments,
                                            std::initializer_list<std::string_view> names, size_t required) {
  const auto fail = [&](std::string message) { return Status(ErrorCode::kInvalidArgument, fmt::format("{} {}", what, message)); };
  BoundArguments bound;
  bound.what_ = std::string(what);
  bound.names_ = names;
  bound.values_.assign(names.size(), nullptr);
  if (arguments.positional.size() > names.size()) {
    return fail(fmt::format("takes {} arguments, was given {}", names.size(), arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound.values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto it = std::find(bound.names_.begin(), bound.names_.end(), name);
    if (it == bound.names_.end()) return fail(fmt::format("has no parameter {}", name));
    const Value*& slot = bound.values_[static_cast<size_t>(it - bound.names_.begin())];
    if (slot) return fail(fmt::format("was given {} twice", name));
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!bound.values_[i]) return fail(fmt::format("needs the argument {}", bound.names_[i]));
  }
  return bound;
}

Result<int64_t> BoundArguments::Int(size_t i, int64_t fallback) const {
  if (!Has(i)) return fallback;
  if (At(i).is_integral()) return At(i).integer();
  return Status(ErrorCode::kInvalidArgument, fmt::format("{} needs an integer for {}, found {}", what_, names_[i], At(i).TypeName()));
}

Result<std::string> BoundArguments::Text(size_t i, std::string_view fallback) const {
  if (!Has(i)) return std::string(fallback);
  if (At(i).is_text()) return At(i).text();
  return Status(ErrorCode::kInvalidArgument, fmt::format("{} needs a string for {}, found {}", what_, names_[i], At(i).TypeName()));
}

}  // namespace billfish::tokenizer::jinja
