// Binds the arguments of a filter, test, method or function to its parameters.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"
#include "tokenizer/jinja/callable.h"

namespace billfish::tokenizer::jinja {

class BoundArguments {
 public:
  /// `what` names the callee in messages. The first `required` parameters must be given.
  /// Errors: kInvalidArgument (missing, unknown, too many or doubled arguments).
  static Result<BoundArguments> Bind(std::string_view what, const Arguments& arguments, std::initializer_list<std::string_view> names,
                                     size_t required = 0);

  bool Has(size_t i) const { return values_[i] != nullptr; }
  /// Precondition: Has(i).
  const Value& At(size_t i) const { return *values_[i]; }
  /// Not given: the fallback. Of another type: kInvalidArgument.
  Result<int64_t> Int(size_t i, int64_t fallback) const;
  Result<std::string> Text(size_t i, std::string_view fallback) const;
  /// Truth of any value.
  bool Flag(size_t i, bool fallback) const { return Has(i) ? At(i).IsTrue() : fallback; }
  bool IsNone(size_t i) const { return !Has(i) || At(i).is_none(); }

 private:
  std::string what_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

}  // namespace billfish::tokenizer::jinja
