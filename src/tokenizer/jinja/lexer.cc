#include "tokenizer/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/status_macros.h"
#include "tokenizer/jinja/python_text.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer::jinja {
namespace {

using Kind = Token::Kind;

// Longer operators first.
constexpr auto kOperators = std::to_array<std::string_view>({"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                                             "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"});

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

/// \r\n and \r become \n, and one newline at the very end goes.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  Result<std::vector<Token>> Run() {
    while (at_ < source_.size()) BILLFISH_RETURN_IF_ERROR(NextTag());
    Add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  Status Error(std::string_view what) const { return {ErrorCode::kCorruptFile, fmt::format("line {}: {}", line_, what)}; }
  std::string_view Rest() const { return std::string_view(source_).substr(at_); }

  void Add(Kind kind, std::string_view text) { tokens_.push_back({kind, std::string(text), line_}); }

  void Advance(size_t count) {
    line_ += static_cast<int>(
        std::count(source_.begin() + static_cast<ptrdiff_t>(at_), source_.begin() + static_cast<ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
    if (count > 0) line_starting_ = source_[at_ - 1] == '\n';
  }

  /// The text up to the next tag, and the tag.
  Status NextTag() {
    size_t begin = at_;
    const auto is_tag = [&](size_t i) {
      return i + 1 < source_.size() && source_[i] == '{' && std::string_view("{%#").find(source_[i + 1]) != std::string_view::npos;
    };
    while (begin < source_.size() && !is_tag(begin)) ++begin;
    if (begin >= source_.size()) {
      AddText(source_.size(), ' ', false);
      return {};
    }
    const char tag = source_[begin + 1];
    const char sign = begin + 2 < source_.size() ? source_[begin + 2] : ' ';
    const bool has_sign = sign == '-' || sign == '+';
    AddText(begin, has_sign ? sign : ' ', tag != '{');
    Advance(has_sign ? 3 : 2);
    if (tag == '#') return Comment();
    if (tag == '%' && IsRaw()) return Raw();
    Add(tag == '%' ? Kind::kBlockBegin : Kind::kVariableBegin, "");
    return Expression(tag == '%' ? '%' : '}');
  }

  /// Emits [at_, end) without the white space that the following tag takes away.
  void AddText(size_t end, char sign, bool may_lstrip) {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    const size_t length = text.size();
    if (sign == '-') {
      text = StripRight(text);
    } else if (sign != '+' && may_lstrip) {
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_begin > 0 || line_starting_) && StripRight(text.substr(line_begin)).empty()) text = text.substr(0, line_begin);
    }
    if (!text.empty()) Add(Kind::kText, text);
    Advance(length);
  }

  /// Consumes the end of a tag that starts at `offset` from here: -%} eats all white space behind it, %} one newline.
  void CloseTag(size_t offset, std::string_view end, bool trims_newline) {
    const bool minus = Rest()[offset] == '-';
    const bool plus = Rest()[offset] == '+';
    Advance(offset + end.size() + (minus || plus ? 1 : 0));
    if (minus) {
      Advance(Rest().size() - StripLeft(Rest()).size());
    } else if (!plus && trims_newline && Rest().starts_with('\n')) {
      Advance(1);
    }
  }

  Status Comment() {
    const size_t end = Rest().find("#}");
    if (end == std::string_view::npos) return Error("the comment is not closed by #}");
    const bool sign = end > 0 && (Rest()[end - 1] == '-' || Rest()[end - 1] == '+');
    CloseTag(sign ? end - 1 : end, "#}", true);
    return {};
  }

  /// The length of "  WORD  " in front of -%} or %}, or npos.
  static size_t BareTag(std::string_view text, std::string_view word) {
    const size_t size = text.size();
    text = StripLeft(text);
    if (!text.starts_with(word)) return std::string_view::npos;
    text = StripLeft(text.substr(word.size()));
    const std::string_view tail = !text.empty() && (text[0] == '-' || text[0] == '+') ? text.substr(1) : text;
    return tail.starts_with("%}") ? size - text.size() : std::string_view::npos;
  }

  bool IsRaw() const { return BareTag(Rest(), "raw") != std::string_view::npos; }

  Status Raw() {
    CloseTag(BareTag(Rest(), "raw"), "%}", false);
    for (size_t i = at_; i + 1 < source_.size(); ++i) {
      if (source_[i] != '{' || source_[i + 1] != '%') continue;
      const char sign = i + 2 < source_.size() ? source_[i + 2] : ' ';
      const bool has_sign = sign == '-' || sign == '+';
      const std::string_view behind = std::string_view(source_).substr(i + (has_sign ? 3 : 2));
      if (BareTag(behind, "endraw") == std::string_view::npos) continue;
      AddText(i, has_sign ? sign : ' ', true);
      Advance(has_sign ? 3 : 2);
      CloseTag(BareTag(Rest(), "endraw"), "%}", true);
      return {};
    }
    return Error("{% raw %} is not closed by {% endraw %}");
  }

  /// Tokens up to the tag's end, which is `end` and '}'.
  Status Expression(char end) {
    std::vector<char> open;
    const std::string closing = end == '%' ? "%}" : "}}";
    while (at_ < source_.size()) {
      const std::string_view rest = Rest();
      const size_t sign = rest[0] == '-' || (rest[0] == '+' && end == '%') ? 1 : 0;
      if (open.empty() && rest.substr(sign).starts_with(closing)) {
        Add(end == '%' ? Kind::kBlockEnd : Kind::kVariableEnd, "");
        CloseTag(0, closing, end == '%');
        return {};
      }
      const char c = rest[0];
      if (IsPythonSpace(static_cast<unsigned char>(c)) && static_cast<unsigned char>(c) < 0x80) {
        Advance(1);
      } else if (c == '\'' || c == '"') {
        BILLFISH_RETURN_IF_ERROR(String(c));
      } else if (IsDigit(c)) {
        Number();
      } else if (IsNameStart(c)) {
        size_t length = 1;
        while (length < rest.size() && (IsNameStart(rest[length]) || IsDigit(rest[length]))) ++length;
        Add(Kind::kName, rest.substr(0, length));
        Advance(length);
      } else {
        BILLFISH_RETURN_IF_ERROR(Operator(open));
      }
    }
    return Error(fmt::format("the tag is not closed by {}", closing));
  }

  Status Operator(std::vector<char>& open) {
    const auto op = std::find_if(kOperators.begin(), kOperators.end(), [&](std::string_view o) { return Rest().starts_with(o); });
    if (op == kOperators.end()) return Error(fmt::format("unexpected character '{}'", Rest().substr(0, Utf8At(source_, at_).length)));
    const char c = (*op)[0];
    if (c == '(' || c == '[' || c == '{') open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) return Error(fmt::format("unexpected '{}'", c));
      open.pop_back();
    }
    Add(Kind::kOperator, *op);
    Advance(op->size());
    return {};
  }

  void Number() {
    const std::string_view rest = Rest();
    size_t length = 0;
    const auto digits = [&](std::string_view allowed) {
      while (length < rest.size() && (allowed.find(rest[length]) != std::string_view::npos || rest[length] == '_')) ++length;
    };
    const std::string_view prefix = rest.substr(0, 2);
    bool is_float = false;
    if (prefix == "0x" || prefix == "0X") {
      length = 2;
      digits("0123456789abcdefABCDEF");
    } else {
      digits("0123456789");
      if (length + 1 < rest.size() && rest[length] == '.' && IsDigit(rest[length + 1])) {
        is_float = true;
        ++length;
        digits("0123456789");
      }
      size_t exponent = length + 1;
      if (exponent < rest.size() && (rest[exponent] == '+' || rest[exponent] == '-')) ++exponent;
      if (exponent < rest.size() && (rest[length] == 'e' || rest[length] == 'E') && IsDigit(rest[exponent])) {
        is_float = true;
        length = exponent;
        digits("0123456789");
      }
    }
    std::string text(rest.substr(0, length));
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    Add(is_float ? Kind::kFloat : Kind::kInteger, text);
    Advance(length);
  }

  /// Python's escapes. Unknown ones keep their backslash.
  Status String(char quote) {
    const std::string_view rest = Rest();
    std::string text;
    size_t i = 1;
    while (i < rest.size() && rest[i] != quote) {
      if (rest[i] != '\\') {
        text += rest[i++];
        continue;
      }
      if (i + 1 >= rest.size()) break;
      const char c = rest[i + 1];
      static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
      if (const size_t simple = kFrom.find(c); simple != std::string_view::npos) {
        text += kTo[simple];
        i += 2;
      } else if (c == '\n') {
        i += 2;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        BILLFISH_RETURN_IF_ERROR(CodePoint(rest.substr(std::min(i + 2, rest.size())), digits, 16, text));
        i += 2 + digits;
      } else if (c >= '0' && c <= '7') {
        size_t digits = 1;
        while (digits < 3 && i + 1 + digits < rest.size() && rest[i + 1 + digits] >= '0' && rest[i + 1 + digits] <= '7') ++digits;
        BILLFISH_RETURN_IF_ERROR(CodePoint(rest.substr(i + 1), digits, 8, text));
        i += 1 + digits;
      } else {
        text += '\\';
        ++i;
      }
    }
    if (i >= rest.size()) return Error("the string is not closed");
    Add(Kind::kString, text);
    Advance(i + 1);
    return {};
  }

  Status CodePoint(std::string_view digits, size_t count, char32_t base, std::string& out) const {
    char32_t value = 0;
    for (size_t i = 0; i < count; ++i) {
      const char c = i < digits.size() ? digits[i] : ' ';
      const int digit = IsDigit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) return Error("a character escape in the string lacks digits");
      value = value * base + static_cast<char32_t>(digit);
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return Error("a character escape in the string is not a character");
    AppendUtf8(value, out);
    return {};
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> Tokenize(std::string_view source) {
  if (const size_t at = FindInvalidUtf8(source); at != std::string_view::npos) {
    return Status(ErrorCode::kCorruptFile, fmt::format("the template is not UTF-8 at byte {}", at));
  }
  return Lexer(NormalizeNewlines(source)).Run();
}

}  // namespace billfish::tokenizer::jinja
