#include "tokenizer/jinja/tests.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/status_macros.h"
#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/python_text.h"

namespace billfish::tokenizer::jinja {
namespace {

template <bool (*kPredicate)(const Value&)>
Result<bool> Simple(Interpreter&, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("the test", arguments, {}));
  return kPredicate(input);
}

template <CompareOperator kOperator>
Result<bool> Comparison(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("the test", arguments, {"other"}, 1));
  return Compare(interpreter.runtime(), kOperator, input, bound.At(0));
}

bool IsDefined(const Value& v) { return !v.is_undefined(); }
bool IsUndefined(const Value& v) { return v.is_undefined(); }
bool IsNone(const Value& v) { return v.is_none(); }
bool IsBoolean(const Value& v) { return v.is_bool(); }
bool IsTrueValue(const Value& v) { return v.is_bool() && v.boolean(); }
bool IsFalseValue(const Value& v) { return v.is_bool() && !v.boolean(); }
bool IsString(const Value& v) { return v.is_text(); }
bool IsNumber(const Value& v) { return v.is_number(); }
bool IsInteger(const Value& v) { return v.is_int(); }
bool IsFloat(const Value& v) { return v.is_float(); }
bool IsMapping(const Value& v) { return v.is_dict() && v.dict().kind == Dict::Kind::kDict; }
bool IsIterable(const Value& v) { return v.is_list() || v.is_text() || v.is_undefined() || IsMapping(v); }
bool IsSequence(const Value& v) {
  return (v.is_list() && v.list().kind != List::Kind::kGenerator) || v.is_text() || v.is_undefined() || IsMapping(v);
}
bool IsCallable(const Value& v) { return v.is_callable(); }
bool IsLower(const Value& v) { return v.is_text() && v.text() == LowerText(v.text()) && v.text() != UpperText(v.text()); }
bool IsUpper(const Value& v) { return v.is_text() && v.text() == UpperText(v.text()) && v.text() != LowerText(v.text()); }

Result<bool> Remainder(const Value& input, int64_t divisor, int64_t& remainder) {
  if (!input.is_integral()) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("a divisibility test needs an integer, found {}", input.TypeName()));
  }
  if (divisor == 0) return Status(ErrorCode::kInvalidArgument, "division by zero");
  remainder = divisor == -1 ? 0 : input.integer() % divisor;
  return true;
}

Result<bool> IsOdd(Interpreter&, const Value& input, const Arguments&) {
  int64_t remainder = 0;
  BILLFISH_ASSIGN_OR_RETURN([[maybe_unused]] const bool checked, Remainder(input, 2, remainder));
  return remainder != 0;
}

Result<bool> IsEven(Interpreter&, const Value& input, const Arguments&) {
  int64_t remainder = 0;
  BILLFISH_ASSIGN_OR_RETURN([[maybe_unused]] const bool checked, Remainder(input, 2, remainder));
  return remainder == 0;
}

Result<bool> IsDivisibleBy(Interpreter&, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("divisibleby", arguments, {"num"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t divisor, bound.Int(0, 1));
  int64_t remainder = 0;
  BILLFISH_ASSIGN_OR_RETURN([[maybe_unused]] const bool checked, Remainder(input, divisor, remainder));
  return remainder == 0;
}

Result<bool> IsSameAs(Interpreter&, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("sameas", arguments, {"other"}, 1));
  return input.IsSameObject(bound.At(0));
}

struct Named {
  std::string_view name;
  TestFunction function;
};

constexpr auto kTests = std::to_array<Named>({
    {"defined", Simple<IsDefined>},
    {"undefined", Simple<IsUndefined>},
    {"none", Simple<IsNone>},
    {"boolean", Simple<IsBoolean>},
    {"true", Simple<IsTrueValue>},
    {"false", Simple<IsFalseValue>},
    {"string", Simple<IsString>},
    {"number", Simple<IsNumber>},
    {"integer", Simple<IsInteger>},
    {"float", Simple<IsFloat>},
    {"mapping", Simple<IsMapping>},
    {"iterable", Simple<IsIterable>},
    {"sequence", Simple<IsSequence>},
    {"callable", Simple<IsCallable>},
    {"lower", Simple<IsLower>},
    {"upper", Simple<IsUpper>},
    {"odd", IsOdd},
    {"even", IsEven},
    {"divisibleby", IsDivisibleBy},
    {"sameas", IsSameAs},
    {"eq", Comparison<CompareOperator::kEqual>},
    {"equalto", Comparison<CompareOperator::kEqual>},
    {"==", Comparison<CompareOperator::kEqual>},
    {"ne", Comparison<CompareOperator::kNotEqual>},
    {"!=", Comparison<CompareOperator::kNotEqual>},
    {"lt", Comparison<CompareOperator::kLess>},
    {"lessthan", Comparison<CompareOperator::kLess>},
    {"<", Comparison<CompareOperator::kLess>},
    {"le", Comparison<CompareOperator::kLessEqual>},
    {"<=", Comparison<CompareOperator::kLessEqual>},
    {"gt", Comparison<CompareOperator::kGreater>},
    {"greaterthan", Comparison<CompareOperator::kGreater>},
    {">", Comparison<CompareOperator::kGreater>},
    {"ge", Comparison<CompareOperator::kGreaterEqual>},
    {">=", Comparison<CompareOperator::kGreaterEqual>},
    {"in", Comparison<CompareOperator::kIn>},
});

}  // namespace

TestFunction FindTest(std::string_view name) {
  const auto it = std::find_if(kTests.begin(), kTests.end(), [&](const Named& n) { return n.name == name; });
  return it == kTests.end() ? nullptr : it->function;
}

}  // namespace billfish::tokenizer::jinja
