// Methods of Python's str.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/status_macros.h"
#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/methods.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/python_text.h"
#include "tokenizer/jinja/text_form.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer::jinja {
namespace {

Status Invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Status Charge(Interpreter& interpreter, const std::string& text) { return interpreter.runtime().TextBytes(text.size()); }

Result<Value> TextList(Interpreter& interpreter, const std::vector<std::string_view>& parts, List::Kind kind = List::Kind::kList) {
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Items(static_cast<int64_t>(parts.size())));
  List* list = interpreter.runtime().NewList(kind);
  for (const std::string_view part : parts) list->items.push_back(Value::Of(part));
  return Value::Of(list);
}

template <std::string (*kMap)(std::string_view)>
Result<Value> Map(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("the method", arguments, {}));
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  return Value::Of(kMap(object.text()));
}

template <bool kLeft, bool kRight>
Result<Value> Strip(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("strip", arguments, {"chars"}));
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  std::string_view text = object.text();
  if (bound.IsNone(0)) {
    if (kRight) text = StripRight(text);
    return Value::Of(kLeft ? StripLeft(text) : text);
  }
  BILLFISH_ASSIGN_OR_RETURN(const std::string characters, bound.Text(0, ""));
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Steps(static_cast<int64_t>(text.size() * (1 + characters.size() / 16) / 16)));
  if (kRight) text = StripRight(text, characters);
  return Value::Of(kLeft ? StripLeft(text, characters) : text);
}

/// startswith and endswith: one text or a tuple of them.
template <bool kStart>
Result<Value> Affix(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(kStart ? "startswith" : "endswith", arguments, {"prefix"}, 1));
  std::vector<Value> candidates = {bound.At(0)};
  if (bound.At(0).is_list()) {
    BILLFISH_ASSIGN_OR_RETURN(candidates, ItemsOf(interpreter.runtime(), bound.At(0)));
  }
  const std::string_view text = object.text();
  for (const Value& candidate : candidates) {
    if (candidate.is_undefined()) return Invalid(candidate.UndefinedMessage());
    if (!candidate.is_text()) return Invalid(fmt::format("startswith and endswith need strings, found {}", candidate.TypeName()));
    if (kStart ? text.starts_with(candidate.text()) : text.ends_with(candidate.text())) return Value::Of(true);
  }
  return Value::Of(false);
}

template <bool kRight>
Result<Value> Split(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("split", arguments, {"sep", "maxsplit"}));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t max_splits, bound.Int(1, -1));
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  if (bound.IsNone(0)) return TextList(interpreter, SplitText(object.text(), std::nullopt, max_splits, kRight));
  BILLFISH_ASSIGN_OR_RETURN(const std::string separator, bound.Text(0, ""));
  if (separator.empty()) return Invalid("split needs a separator that is not empty");
  if (kRight)
    BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Steps(static_cast<int64_t>(object.text().size() * (1 + separator.size() / 16) / 16)));
  return TextList(interpreter, SplitText(object.text(), separator, max_splits, kRight));
}

Result<Value> SplitLinesMethod(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("splitlines", arguments, {"keepends"}));
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  return TextList(interpreter, SplitLines(object.text(), bound.Flag(0, false)));
}

template <bool kRight>
Result<Value> Partition(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("partition", arguments, {"sep"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(const std::string separator, bound.Text(0, ""));
  if (separator.empty()) return Invalid("partition needs a separator that is not empty");
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  const std::vector<std::string_view> parts = SplitText(object.text(), separator, 1, kRight);
  if (parts.size() == 2) return TextList(interpreter, {parts[0], separator, parts[1]}, List::Kind::kTuple);
  return kRight ? TextList(interpreter, {"", "", parts[0]}, List::Kind::kTuple)
                : TextList(interpreter, {parts[0], "", ""}, List::Kind::kTuple);
}

Result<Value> Replace(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("replace", arguments, {"old", "new", "count"}, 2));
  BILLFISH_ASSIGN_OR_RETURN(const std::string from, bound.Text(0, ""));
  BILLFISH_ASSIGN_OR_RETURN(const std::string to, bound.Text(1, ""));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t count, bound.Int(2, -1));
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().TextBytes(static_cast<size_t>(CountText(object.text(), from)) * to.size()));
  return Value::Of(ReplaceText(object.text(), from, to, count));
}

/// find, rfind, index, rindex, over the whole text.
template <bool kRight, bool kMustBeThere>
Result<Value> Find(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("find", arguments, {"sub"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(const std::string what, bound.Text(0, ""));
  const std::string& text = object.text();
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Steps(static_cast<int64_t>(text.size() * (1 + (kRight ? what.size() / 16 : 0)) / 16)));
  const size_t at = kRight ? text.rfind(what) : FindText(text, what);
  if (at != std::string::npos) return Value::Of(static_cast<int64_t>(CountCharacters(std::string_view(text).substr(0, at))));
  if (kMustBeThere) return Invalid("index: the substring was not found");
  return Value::Of(int64_t{-1});
}

Result<Value> Count(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("count", arguments, {"sub"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(const std::string what, bound.Text(0, ""));
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  return Value::Of(CountText(object.text(), what));
}

Result<Value> Join(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("join", arguments, {"iterable"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(interpreter.runtime(), bound.At(0)));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_text()) return Invalid(fmt::format("join needs strings, item {} is a {}", i, items[i].TypeName()));
    BILLFISH_RETURN_IF_ERROR(interpreter.runtime().TextBytes(object.text().size() + items[i].text().size()));
    if (i > 0) out += object.text();
    out += items[i].text();
  }
  return Value::Of(std::move(out));
}

template <bool kPrefix>
Result<Value> RemoveAffix(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("removeprefix", arguments, {"prefix"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(const std::string affix, bound.Text(0, ""));
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  std::string_view text = object.text();
  if (kPrefix && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!kPrefix && text.ends_with(affix)) text.remove_suffix(affix.size());
  return Value::Of(text);
}

/// ljust, rjust, center and zfill pad to a width.
template <int kSide>
Result<Value> Pad(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("the padding method", arguments, {"width", "fillchar"}, 1));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t width, bound.Int(0, 0));
  BILLFISH_ASSIGN_OR_RETURN(const std::string fill, bound.Text(1, kSide == 2 ? "0" : " "));
  if (CountCharacters(fill) != 1) return Invalid("padding needs exactly one character to fill with");
  std::string_view text = object.text();
  const int64_t missing = std::max<int64_t>(0, width - static_cast<int64_t>(CountCharacters(text)));
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().TextBytes(text.size()));
  BILLFISH_RETURN_IF_ERROR(
      interpreter.runtime().TextBytes(static_cast<size_t>(std::min(missing, Runtime::kMaxTextBytes + 1)) * fill.size()));
  // Python's center puts the odd blank left if the width is odd.
  const int64_t left = kSide == 0 ? 0 : kSide == 1 ? missing / 2 + (missing & width & 1) : missing;
  std::string out;
  if (kSide == 2 && fill == "0" && (text.starts_with('-') || text.starts_with('+')) && !bound.Has(1)) {
    out += text.front();
    text.remove_prefix(1);
  }
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (int64_t i = left; i < missing; ++i) out += fill;
  return Value::Of(std::move(out));
}

/// rjust is Pad<2> with a blank.
Result<Value> RightJustify(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  Arguments with_fill = arguments;
  if (with_fill.positional.size() == 1 && with_fill.named.empty()) with_fill.positional.push_back(Value::Of(" "));
  return Pad<2>(interpreter, object, with_fill);
}

bool IsDigitCharacter(char32_t c) { return IsNumeric(c); }
bool IsLetterCharacter(char32_t c) { return IsLetter(c); }
bool IsAlphanumeric(char32_t c) { return IsLetter(c) || IsNumeric(c); }

/// True for a text that is not empty and has only such characters.
template <bool (*kPredicate)(char32_t)>
Result<Value> All(Interpreter& interpreter, const Value& object, const Arguments&) {
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  bool all = !object.text().empty();
  for (size_t i = 0; all && i < object.text().size();) {
    const Utf8Unit unit = Utf8At(object.text(), i);
    all = kPredicate(unit.code_point);
    i += unit.length;
  }
  return Value::Of(all);
}

template <bool kUpper>
Result<Value> HasCase(Interpreter& interpreter, const Value& object, const Arguments&) {
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  const std::string upper = UpperText(object.text()), lower = LowerText(object.text());
  return Value::Of(upper != lower && object.text() == (kUpper ? upper : lower));
}

/// "{}", "{0}" and "{name}" without format specifications.
Result<Value> Format(Interpreter& interpreter, const Value& object, const Arguments& arguments) {
  std::string out;
  size_t next = 0;
  const std::string_view text = object.text();
  BILLFISH_RETURN_IF_ERROR(Charge(interpreter, object.text()));
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c == '{' || c == '}') && i + 1 < text.size() && text[i + 1] == c) {
      out += c;
      ++i;
      continue;
    }
    if (c != '{') {
      out += c;
      continue;
    }
    const size_t close = text.find('}', i);
    const std::string_view field = close == std::string_view::npos ? "!" : text.substr(i + 1, close - i - 1);
    const Value* value = nullptr;
    if (field.find_first_not_of("0123456789") == std::string_view::npos && field.size() < 9) {
      const size_t index = field.empty() ? next++ : std::stoul(std::string(field));
      if (index < arguments.positional.size()) value = &arguments.positional[index];
    } else {
      for (const auto& [name, named] : arguments.named) {
        if (name == field) value = &named;
      }
    }
    if (!value)
      return Status(ErrorCode::kUnsupported, fmt::format("format: the field '{{{}}}' is not implemented or has no argument", field));
    BILLFISH_ASSIGN_OR_RETURN(const std::string part, ToText(interpreter.runtime(), *value));
    out += part;
    i = close;
  }
  return Value::Of(std::move(out));
}

struct Named {
  std::string_view name;
  MethodFunction function;
};

constexpr auto kMethods = std::to_array<Named>({
    {"strip", Strip<true, true>},
    {"lstrip", Strip<true, false>},
    {"rstrip", Strip<false, true>},
    {"startswith", Affix<true>},
    {"endswith", Affix<false>},
    {"split", Split<false>},
    {"rsplit", Split<true>},
    {"splitlines", SplitLinesMethod},
    {"partition", Partition<false>},
    {"rpartition", Partition<true>},
    {"replace", Replace},
    {"upper", Map<UpperText>},
    {"lower", Map<LowerText>},
    {"casefold", Map<LowerText>},
    {"capitalize", Map<CapitalizeText>},
    {"title", Map<TitleText>},
    {"find", Find<false, false>},
    {"rfind", Find<true, false>},
    {"index", Find<false, true>},
    {"rindex", Find<true, true>},
    {"count", Count},
    {"join", Join},
    {"removeprefix", RemoveAffix<true>},
    {"removesuffix", RemoveAffix<false>},
    {"ljust", Pad<0>},
    {"center", Pad<1>},
    {"zfill", Pad<2>},
    {"rjust", RightJustify},
    {"isdigit", All<IsDigitCharacter>},
    {"isnumeric", All<IsDigitCharacter>},
    {"isdecimal", All<IsDigitCharacter>},
    {"isalpha", All<IsLetterCharacter>},
    {"isalnum", All<IsAlphanumeric>},
    {"isspace", All<IsPythonSpace>},
    {"isupper", HasCase<true>},
    {"islower", HasCase<false>},
    {"format", Format},
});

}  // namespace

MethodFunction FindTextMethod(std::string_view name) {
  const auto it = std::find_if(kMethods.begin(), kMethods.end(), [&](const Named& n) { return n.name == name; });
  return it == kMethods.end() ? nullptr : it->function;
}

}  // namespace billfish::tokenizer::jinja
