#include "tokenizer/jinja/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/status_macros.h"
#include "tokenizer/jinja/python_text.h"
#include "tokenizer/jinja/text_form.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer::jinja {
namespace {

constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};

Status Invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Status Overflow() { return {ErrorCode::kUnsupported, "an integer leaves the range of 64 bits"}; }

Result<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) return Value::Of(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value::Of(result);
}

Result<Value> IntegerArithmetic(BinaryOperator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case BinaryOperator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow();
      return Value::Of(result);
    case BinaryOperator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return Overflow();
      return Value::Of(result);
    case BinaryOperator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow();
      return Value::Of(result);
    case BinaryOperator::kPower:
      return IntegerPower(a, b);
    default:
      break;
  }
  if (b == 0) return Invalid("division by zero");
  if (op == BinaryOperator::kDivide) return Value::Of(static_cast<double>(a) / static_cast<double>(b));
  if (a == INT64_MIN && b == -1) return op == BinaryOperator::kModulo ? Result<Value>(Value::Of(int64_t{0})) : Result<Value>(Overflow());
  // Python rounds the quotient down and gives the remainder the divisor's sign.
  const bool adjust = a % b != 0 && ((a < 0) != (b < 0));
  if (op == BinaryOperator::kFloorDivide) return Value::Of(a / b - (adjust ? 1 : 0));
  return Value::Of(a % b + (adjust ? b : 0));
}

Result<Value> FloatArithmetic(BinaryOperator op, double a, double b) {
  switch (op) {
    case BinaryOperator::kAdd:
      return Value::Of(a + b);
    case BinaryOperator::kSubtract:
      return Value::Of(a - b);
    case BinaryOperator::kMultiply:
      return Value::Of(a * b);
    case BinaryOperator::kPower:
      return Value::Of(std::pow(a, b));
    default:
      break;
  }
  if (b == 0) return Invalid("division by zero");
  if (op == BinaryOperator::kDivide) return Value::Of(a / b);
  if (op == BinaryOperator::kFloorDivide) return Value::Of(std::floor(a / b));
  const double remainder = std::fmod(a, b);
  return Value::Of(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
}

Result<Value> Repeat(Runtime& runtime, const Value& sequence, int64_t count) {
  count = std::max<int64_t>(count, 0);
  if (sequence.is_text()) {
    const std::string& text = sequence.text();
    if (!text.empty() && count > Runtime::kMaxTextBytes / static_cast<int64_t>(text.size())) count = Runtime::kMaxTextBytes + 1;
    BILLFISH_RETURN_IF_ERROR(runtime.TextBytes(text.empty() ? 0 : text.size() * static_cast<size_t>(count)));
    if (text.empty()) count = 0;
    std::string out;
    out.reserve(text.size() * static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) out += text;
    return Value::Of(std::move(out));
  }
  const std::vector<Value>& items = sequence.list().items;
  if (items.empty()) count = 0;
  if (count > Runtime::kMaxItems) count = Runtime::kMaxItems + 1;
  BILLFISH_RETURN_IF_ERROR(runtime.Items(count * static_cast<int64_t>(std::min<size_t>(items.size(), Runtime::kMaxItems)) + 1));
  List* result = runtime.NewList(sequence.list().kind);
  for (int64_t i = 0; i < count; ++i) result->items.insert(result->items.end(), items.begin(), items.end());
  return Value::Of(result);
}

bool IsRepeatable(const Value& v) { return v.is_text() || (v.is_list() && v.list().kind != List::Kind::kGenerator); }

}  // namespace

Result<Value> ApplyBinary(Runtime& runtime, BinaryOperator op, const Value& left, const Value& right) {
  for (const Value* v : {&left, &right}) {
    if (v->is_undefined()) return Invalid(v->UndefinedMessage());
  }
  if (left.is_integral() && right.is_integral()) return IntegerArithmetic(op, left.integer(), right.integer());
  if (left.is_number() && right.is_number()) return FloatArithmetic(op, left.number(), right.number());
  if (op == BinaryOperator::kAdd && left.is_text() && right.is_text()) {
    BILLFISH_RETURN_IF_ERROR(runtime.TextBytes(left.text().size() + right.text().size()));
    return Value::Of(left.text() + right.text());
  }
  if (op == BinaryOperator::kAdd && IsRepeatable(left) && IsRepeatable(right) && left.is_list() && right.is_list() &&
      left.list().kind == right.list().kind) {
    BILLFISH_RETURN_IF_ERROR(runtime.Items(static_cast<int64_t>(left.list().items.size() + right.list().items.size()) + 1));
    List* result = runtime.NewList(left.list().kind);
    result->items = left.list().items;
    result->items.insert(result->items.end(), right.list().items.begin(), right.list().items.end());
    return Value::Of(result);
  }
  if (op == BinaryOperator::kMultiply && IsRepeatable(left) && right.is_integral()) return Repeat(runtime, left, right.integer());
  if (op == BinaryOperator::kMultiply && IsRepeatable(right) && left.is_integral()) return Repeat(runtime, right, left.integer());
  if (op == BinaryOperator::kModulo && left.is_text()) {
    return Status(ErrorCode::kUnsupported, "formatting a string with % is not implemented; templates use ~ or the replace filter");
  }
  return Invalid(fmt::format("{} cannot be applied to {} and {}", kSymbols[static_cast<size_t>(op)], left.TypeName(), right.TypeName()));
}

Result<Value> ApplyUnary(UnaryOperator op, const Value& operand) {
  if (op == UnaryOperator::kNot) return Value::Of(!operand.IsTrue());
  if (operand.is_undefined()) return Invalid(operand.UndefinedMessage());
  if (!operand.is_number()) return Invalid(fmt::format("a sign cannot be applied to {}", operand.TypeName()));
  if (operand.is_float()) return Value::Of(op == UnaryOperator::kMinus ? -operand.number() : operand.number());
  if (op == UnaryOperator::kPlus) return Value::Of(operand.integer());
  if (operand.integer() == INT64_MIN) return Overflow();
  return Value::Of(-operand.integer());
}

Result<bool> AreEqual(Runtime& runtime, const Value& left, const Value& right) {
  const Runtime::Level level(runtime);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  BILLFISH_RETURN_IF_ERROR(runtime.Steps(1));
  if (left.is_number() && right.is_number()) {
    return left.is_float() || right.is_float() ? left.number() == right.number() : left.integer() == right.integer();
  }
  if (left.is_text() && right.is_text()) {
    if (left.text().size() != right.text().size()) return false;
    BILLFISH_RETURN_IF_ERROR(runtime.Steps(static_cast<int64_t>(left.text().size() / 64)));
    return left.text() == right.text();
  }
  if (left.IsSameObject(right)) return true;
  if (left.is_list() && right.is_list()) {
    const List &a = left.list(), &b = right.list();
    if (a.kind != b.kind || a.kind == List::Kind::kGenerator || a.items.size() != b.items.size()) return false;
    for (size_t i = 0; i < a.items.size(); ++i) {
      BILLFISH_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, a.items[i], b.items[i]));
      if (!equal) return false;
    }
    return true;
  }
  if (left.is_dict() && right.is_dict()) {
    const Dict &a = left.dict(), &b = right.dict();
    if (a.kind != Dict::Kind::kDict || b.kind != Dict::Kind::kDict || a.entries.size() != b.entries.size()) return false;
    for (const Dict::Entry& entry : a.entries) {
      const Value* other = b.Find(entry.key);
      if (!other) return false;
      BILLFISH_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, entry.value, *other));
      if (!equal) return false;
    }
    return true;
  }
  return false;
}

Result<bool> IsLess(Runtime& runtime, const Value& left, const Value& right) {
  const Runtime::Level level(runtime);
  BILLFISH_RETURN_IF_ERROR(level.Check());
  BILLFISH_RETURN_IF_ERROR(runtime.Steps(1));
  if (left.is_number() && right.is_number()) {
    return left.is_float() || right.is_float() ? left.number() < right.number() : left.integer() < right.integer();
  }
  // Byte order of UTF-8 is code point order.
  if (left.is_text() && right.is_text()) {
    BILLFISH_RETURN_IF_ERROR(runtime.Steps(static_cast<int64_t>(std::min(left.text().size(), right.text().size()) / 64)));
    return left.text() < right.text();
  }
  if (IsRepeatable(left) && IsRepeatable(right) && left.is_list() && right.is_list() && left.list().kind == right.list().kind) {
    const std::vector<Value>&a = left.list().items, &b = right.list().items;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      BILLFISH_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, a[i], b[i]));
      if (!equal) return IsLess(runtime, a[i], b[i]);
    }
    return a.size() < b.size();
  }
  for (const Value* v : {&left, &right}) {
    if (v->is_undefined()) return Invalid(v->UndefinedMessage());
  }
  return Invalid(fmt::format("{} and {} cannot be ordered", left.TypeName(), right.TypeName()));
}

Result<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_text()) {
    if (item.is_undefined()) return Invalid(item.UndefinedMessage());
    if (!item.is_text()) return Invalid(fmt::format("'in <string>' requires a string on the left, found {}", item.TypeName()));
    BILLFISH_RETURN_IF_ERROR(runtime.Steps(static_cast<int64_t>(container.text().size() / 64)));
    return FindText(container.text(), item.text()) != std::string_view::npos;
  }
  if (container.is_dict() && container.dict().kind == Dict::Kind::kDict) return container.dict().Find(item) != nullptr;
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(runtime, container));
  for (const Value& candidate : items) {
    BILLFISH_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, candidate, item));
    if (equal) return true;
  }
  return false;
}

Result<bool> Compare(Runtime& runtime, CompareOperator op, const Value& left, const Value& right) {
  const auto negate = [](Result<bool> result) { return result.ok() ? Result<bool>(!*result) : result; };
  switch (op) {
    case CompareOperator::kEqual:
      return AreEqual(runtime, left, right);
    case CompareOperator::kNotEqual:
      return negate(AreEqual(runtime, left, right));
    case CompareOperator::kIn:
      return Contains(runtime, right, left);
    case CompareOperator::kNotIn:
      return negate(Contains(runtime, right, left));
    case CompareOperator::kLess:
      return IsLess(runtime, left, right);
    case CompareOperator::kGreater:
      return IsLess(runtime, right, left);
    default:
      break;
  }
  const bool less_equal = op == CompareOperator::kLessEqual;
  BILLFISH_ASSIGN_OR_RETURN(const bool strict, less_equal ? IsLess(runtime, left, right) : IsLess(runtime, right, left));
  return strict ? Result<bool>(true) : AreEqual(runtime, left, right);
}

Result<std::vector<Value>> ItemsOf(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  if (value.is_list()) {
    BILLFISH_RETURN_IF_ERROR(runtime.Steps(static_cast<int64_t>(value.list().items.size())));
    if (value.list().kind == List::Kind::kGenerator) {
      items.swap(value.list().items);
    } else {
      items = value.list().items;
    }
    return items;
  }
  if (value.is_dict() && value.dict().kind == Dict::Kind::kDict) {
    BILLFISH_RETURN_IF_ERROR(runtime.Steps(static_cast<int64_t>(value.dict().entries.size())));
    for (const Dict::Entry& entry : value.dict().entries) items.push_back(entry.key);
    return items;
  }
  if (value.is_text()) {
    BILLFISH_RETURN_IF_ERROR(runtime.Items(static_cast<int64_t>(value.text().size())));
    for (const std::string_view c : Characters(value.text())) items.push_back(Value::Of(c));
    return items;
  }
  if (value.is_undefined()) return items;
  return Invalid(fmt::format("'{}' object is not iterable", value.TypeName()));
}

Result<int64_t> LengthOf(const Value& value) {
  if (value.is_undefined()) return int64_t{0};
  if (value.is_text()) return static_cast<int64_t>(CountCharacters(value.text()));
  if (value.is_list() && value.list().kind != List::Kind::kGenerator) return static_cast<int64_t>(value.list().items.size());
  if (value.is_dict() && value.dict().kind == Dict::Kind::kDict) return static_cast<int64_t>(value.dict().entries.size());
  return Invalid(fmt::format("object of type '{}' has no length", value.TypeName()));
}

Result<Value> ItemAt(Runtime& runtime, const Value& value, const Value& index) {
  if (value.is_undefined()) return Invalid(value.UndefinedMessage());
  if (value.is_dict() && value.dict().kind == Dict::Kind::kDict) {
    if (const Value* found = value.dict().Find(index)) return *found;
  } else if (index.is_integral() && (value.is_text() || IsRepeatable(value))) {
    BILLFISH_ASSIGN_OR_RETURN(const int64_t length, LengthOf(value));
    const int64_t i = index.integer() < 0 ? index.integer() + length : index.integer();
    if (i >= 0 && i < length) {
      if (value.is_list()) return value.list().items[static_cast<size_t>(i)];
      BILLFISH_RETURN_IF_ERROR(runtime.Steps(i / 16));
      size_t at = 0;
      for (int64_t skipped = 0; skipped < i; ++skipped) at += Utf8At(value.text(), at).length;
      return Value::Of(std::string_view(value.text()).substr(at, Utf8At(value.text(), at).length));
    }
  }
  BILLFISH_ASSIGN_OR_RETURN(const std::string name, ToText(runtime, index));
  return Value::MakeUndefined(name.substr(0, 100));
}

Result<Value> SliceOf(Runtime& runtime, const Value& value, const Value& begin, const Value& end, const Value& step) {
  if (value.is_undefined()) return Invalid(value.UndefinedMessage());
  if (!value.is_text() && !IsRepeatable(value)) return Value::MakeUndefined("slice");
  const auto bound = [](const Value& v, int64_t fallback) -> Result<int64_t> {
    if (v.is_none() || v.is_undefined()) return fallback;
    if (v.is_integral()) return v.integer();
    return Invalid(fmt::format("a slice needs integers, found {}", v.TypeName()));
  };
  BILLFISH_ASSIGN_OR_RETURN(const int64_t by, bound(step, 1));
  if (by == 0) return Invalid("a slice's step cannot be zero");
  std::vector<std::string_view> characters;
  if (value.is_text()) {
    BILLFISH_RETURN_IF_ERROR(runtime.TextBytes(value.text().size()));
    characters = Characters(value.text());
  }
  const auto length = static_cast<int64_t>(value.is_text() ? characters.size() : value.list().items.size());
  // Python clamps the bounds to [0, length], or to [-1, length - 1] when it walks backwards.
  const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? length : length - 1;
  const auto clamp = [&](int64_t i) { return std::clamp(i < 0 && i >= -length ? i + length : i < 0 ? low : i, low, high); };
  BILLFISH_ASSIGN_OR_RETURN(const int64_t first, bound(begin, by > 0 ? 0 : length - 1));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t last, bound(end, by > 0 ? length : -length - 1));
  const int64_t from = clamp(first), to = clamp(last);
  std::string text;
  List* list = value.is_list() ? runtime.NewList(value.list().kind) : nullptr;
  for (int64_t i = from; by > 0 ? i < to : i > to;) {
    if (list) {
      BILLFISH_RETURN_IF_ERROR(runtime.Items(1));
      list->items.push_back(value.list().items[static_cast<size_t>(i)]);
    } else {
      text += characters[static_cast<size_t>(i)];
    }
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  return list ? Value::Of(list) : Value::Of(std::move(text));
}

}  // namespace billfish::tokenizer::jinja
