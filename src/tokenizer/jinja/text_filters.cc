// Filters on texts and numbers, and those that turn values into text.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "core/status_macros.h"
#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/python_text.h"
#include "tokenizer/jinja/text_form.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer::jinja {
namespace {

Status Invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

template <std::string (*kMap)(std::string_view)>
Result<Value> MapText(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("the filter", arguments, {}));
  BILLFISH_ASSIGN_OR_RETURN(const std::string text, ToText(interpreter.runtime(), input));
  return Value::Of(kMap(text));
}

/// Jinja's own title: words are cut at white space and opening brackets.
std::string TitleWords(std::string_view text) {
  std::string out;
  bool start = true;
  for (const std::string_view c : Characters(text)) {
    out += start ? UpperText(c) : LowerText(c);
    start = IsPythonSpace(Utf8At(c, 0).code_point) || std::string_view("-({[<").find(c) != std::string_view::npos;
  }
  return out;
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string Same(std::string_view text) { return std::string(text); }

Result<Value> Safe(Interpreter&, const Value& input, const Arguments&) { return input; }

Result<Value> Trim(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("trim", arguments, {"chars"}));
  BILLFISH_ASSIGN_OR_RETURN(const std::string text, ToText(interpreter.runtime(), input));
  if (bound.IsNone(0)) return Value::Of(StripLeft(StripRight(text)));
  BILLFISH_ASSIGN_OR_RETURN(const std::string characters, bound.Text(0, ""));
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().Steps(static_cast<int64_t>(text.size() * (1 + characters.size() / 16) / 16)));
  return Value::Of(StripLeft(StripRight(text, characters), characters));
}

Result<Value> Replace(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("replace", arguments, {"old", "new", "count"}, 2));
  BILLFISH_ASSIGN_OR_RETURN(const std::string text, ToText(interpreter.runtime(), input));
  BILLFISH_ASSIGN_OR_RETURN(const std::string from, ToText(interpreter.runtime(), bound.At(0)));
  BILLFISH_ASSIGN_OR_RETURN(const std::string to, ToText(interpreter.runtime(), bound.At(1)));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t count, bound.IsNone(2) ? Result<int64_t>(int64_t{-1}) : bound.Int(2, -1));
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().TextBytes(static_cast<size_t>(CountText(text, from)) * to.size()));
  return Value::Of(ReplaceText(text, from, to, count));
}

Result<Value> Indent(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("indent", arguments, {"width", "first", "blank"}));
  BILLFISH_ASSIGN_OR_RETURN(std::string text, ToText(interpreter.runtime(), input));
  std::string margin;
  if (bound.Has(0) && bound.At(0).is_text()) {
    margin = bound.At(0).text();
  } else {
    BILLFISH_ASSIGN_OR_RETURN(const int64_t width, bound.Int(0, 4));
    margin.assign(static_cast<size_t>(std::clamp<int64_t>(width, 0, 1000)), ' ');
  }
  const bool first = bound.Flag(1, false), blank = bound.Flag(2, false);
  text += '\n';  // as Jinja does, so that splitlines keeps an empty last line
  const std::vector<std::string_view> lines = SplitLines(text, false);
  BILLFISH_RETURN_IF_ERROR(interpreter.runtime().TextBytes(lines.size() * margin.size()));
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i == 0 ? first : blank || !lines[i].empty()) out += margin;
    out += lines[i];
  }
  return Value::Of(std::move(out));
}

Result<Value> ToJsonFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound,
                            BoundArguments::Bind("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  // Jinja's own tojson has the indentation as its first parameter, the one for chat templates ensure_ascii.
  JsonStyle style;
  style.ensure_ascii = bound.Flag(0, false);
  style.sort_keys = bound.Flag(3, false);
  if (!bound.IsNone(1)) {
    if (bound.At(1).is_text()) {
      style.indent = bound.At(1).text();
    } else {
      BILLFISH_ASSIGN_OR_RETURN(const int64_t width, bound.Int(1, 0));
      style.indent = std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 100)), ' ');
    }
    style.item_separator.assign(1, ',');
  }
  if (!bound.IsNone(2)) {
    BILLFISH_ASSIGN_OR_RETURN(const std::vector<Value> separators, ItemsOf(interpreter.runtime(), bound.At(2)));
    if (separators.size() != 2 || !separators[0].is_text() || !separators[1].is_text()) {
      return Invalid("tojson needs two strings for separators");
    }
    style.item_separator = separators[0].text();
    style.key_separator = separators[1].text();
  }
  BILLFISH_ASSIGN_OR_RETURN(std::string json, ToJson(interpreter.runtime(), input, style));
  return Value::Of(std::move(json));
}

Result<Value> Default(Interpreter&, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("default", arguments, {"default_value", "boolean"}));
  const bool replaced = input.is_undefined() || (bound.Flag(1, false) && !input.IsTrue());
  if (!replaced) return input;
  return bound.Has(0) ? bound.At(0) : Value::Of("");
}

/// Python's int(text, base): sign, digits with single underscores between, white space around.
bool ParseInteger(std::string_view text, int base, int64_t& number) {
  text = StripLeft(StripRight(text));
  std::string digits;
  for (const char c : text) {
    if (c != '_') digits += c;
  }
  const char* begin = digits.data() + (digits.starts_with('+') && digits.size() > 1 && digits[1] != '-' ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, digits.data() + digits.size(), number, base);
  return error == std::errc() && end == digits.data() + digits.size();
}

bool ParseFloat(std::string_view text, double& number) {
  const std::string digits(StripLeft(StripRight(text)));
  if (digits.empty() || digits.find_first_of("xXpP(") != std::string::npos) return false;
  char* end = nullptr;
  number = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size();
}

bool FitsInteger(double number) { return number > -9.2e18 && number < 9.2e18; }

Result<Value> IntFilter(Interpreter&, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("int", arguments, {"default", "base"}));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t base, bound.Int(1, 10));
  if (base < 2 || base > 36) return Invalid(fmt::format("int needs a base 2..36, found {}", base));
  if (input.is_undefined()) return Invalid(input.UndefinedMessage());
  if (input.is_integral()) return Value::Of(input.integer());
  if (input.is_float() && FitsInteger(input.number())) return Value::Of(static_cast<int64_t>(input.number()));
  int64_t integer = 0;
  double number = 0;
  if (input.is_text() && ParseInteger(input.text(), static_cast<int>(base), integer)) return Value::Of(integer);
  if (input.is_text() && ParseFloat(input.text(), number) && FitsInteger(number)) return Value::Of(static_cast<int64_t>(number));
  return bound.Has(0) ? bound.At(0) : Value::Of(int64_t{0});
}

Result<Value> FloatFilter(Interpreter&, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("float", arguments, {"default"}));
  if (input.is_undefined()) return Invalid(input.UndefinedMessage());
  double number = 0;
  if (input.is_number()) return Value::Of(input.number());
  if (input.is_text() && ParseFloat(input.text(), number)) return Value::Of(number);
  return bound.Has(0) ? bound.At(0) : Value::Of(0.0);
}

Result<Value> Abs(Interpreter&, const Value& input, const Arguments&) {
  if (input.is_float()) return Value::Of(std::fabs(input.number()));
  if (!input.is_integral() || input.integer() == INT64_MIN) return Invalid(fmt::format("abs needs a number, found {}", input.TypeName()));
  return Value::Of(std::abs(input.integer()));
}

Result<Value> Round(Interpreter&, const Value& input, const Arguments& arguments) {
  BILLFISH_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("round", arguments, {"precision", "method"}));
  BILLFISH_ASSIGN_OR_RETURN(const int64_t precision, bound.Int(0, 0));
  BILLFISH_ASSIGN_OR_RETURN(const std::string method, bound.Text(1, "common"));
  if (!input.is_number()) return Invalid(fmt::format("round needs a number, found {}", input.TypeName()));
  if (precision < 0 || precision > 15) return Status(ErrorCode::kUnsupported, "round is implemented for 0 to 15 digits");
  const double number = input.number(), scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value::Of(std::ceil(number * scale) / scale);
  if (method == "floor") return Value::Of(std::floor(number * scale) / scale);
  if (method != "common") return Invalid(fmt::format("round has no method '{}'", method));
  // printf rounds the exact decimal value half to even, as Python's round does.
  return Value::Of(std::strtod(fmt::format("{:.{}f}", number, precision).c_str(), nullptr));
}

Result<Value> WordCount(Interpreter& interpreter, const Value& input, const Arguments&) {
  BILLFISH_ASSIGN_OR_RETURN(const std::string text, ToText(interpreter.runtime(), input));
  return Value::Of(static_cast<int64_t>(SplitText(text, std::nullopt, -1, false).size()));
}

struct Named {
  std::string_view name;
  FilterFunction function;
};

constexpr auto kFilters = std::to_array<Named>({
    {"trim", Trim},
    {"replace", Replace},
    {"indent", Indent},
    {"tojson", ToJsonFilter},
    {"default", Default},
    {"d", Default},
    {"upper", MapText<UpperText>},
    {"lower", MapText<LowerText>},
    {"capitalize", MapText<CapitalizeText>},
    {"title", MapText<TitleWords>},
    {"string", MapText<Same>},
    {"escape", MapText<EscapeHtml>},
    {"e", MapText<EscapeHtml>},
    {"safe", Safe},
    {"int", IntFilter},
    {"float", FloatFilter},
    {"abs", Abs},
    {"round", Round},
    {"wordcount", WordCount},
});

}  // namespace

FilterFunction FindTextFilter(std::string_view name) {
  const auto it = std::find_if(kFilters.begin(), kFilters.end(), [&](const Named& n) { return n.name == name; });
  return it == kFilters.end() ? nullptr : it->function;
}

FilterFunction FindFilter(std::string_view name) {
  const FilterFunction text = FindTextFilter(name);
  return text ? text : FindSequenceFilter(name);
}

}  // namespace billfish::tokenizer::jinja
