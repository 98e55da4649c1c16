#include "tokenizer/oniguruma.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <vector>

#include "core/status_macros.h"
#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

constexpr std::string_view kSpaceItems = R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// Letters, marks, decimal digits and connector punctuation, and what is Alphabetic without being a letter.
#define BILLFISH_WORD_ITEMS R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})"
constexpr std::string_view kWordItemsInClass = BILLFISH_WORD_ITEMS;
// Outside of brackets \w also has the Latin-1 superscripts and fractions.
constexpr std::string_view kWordItems = BILLFISH_WORD_ITEMS R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
#undef BILLFISH_WORD_ITEMS
constexpr std::string_view kHexItems = "0-9a-fA-F";
constexpr int kMaxClassDepth = 50;

struct Alias {
  std::string_view name;   ///< lower case, without separators
  std::string_view items;  ///< what stands inside [...]
};
constexpr auto kAliases = std::to_array<Alias>({
    {"space", kSpaceItems},
    {"whitespace", kSpaceItems},
    {"word", kWordItems},
    {"classword", kWordItemsInClass},
    {"xdigit", kHexItems},
    {"alpha", R"(\p{Alphabetic})"},
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"digit", R"(\p{Nd})"},
    {"upper", R"(\p{Uppercase})"},
    {"lower", R"(\p{Lowercase})"},
    {"punct", R"(\p{P})"},
    {"cntrl", R"(\p{Cc})"},
    {"blank", R"(\p{Zs}\t)"},
    {"posixpunct", R"(\p{P}\p{S})"},
    {"ascii", R"(\x00-\x7F)"},
    {"letter", R"(\p{L})"},
    {"casedletter", R"(\p{L&})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"modifierletter", R"(\p{Lm})"},
    {"otherletter", R"(\p{Lo})"},
    {"mark", R"(\p{M})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"spacingmark", R"(\p{Mc})"},
    {"enclosingmark", R"(\p{Me})"},
    {"number", R"(\p{N})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"letternumber", R"(\p{Nl})"},
    {"othernumber", R"(\p{No})"},
    {"punctuation", R"(\p{P})"},
    {"symbol", R"(\p{S})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"modifiersymbol", R"(\p{Sk})"},
    {"othersymbol", R"(\p{So})"},
    {"separator", R"(\p{Z})"},
    {"spaceseparator", R"(\p{Zs})"},
    {"other", R"(\p{C})"},
    {"control", R"(\p{Cc})"},
    {"format", R"(\p{Cf})"},
});

/// A set as it would stand inside brackets; negated sets stand in brackets of their own.
struct Set {
  std::string items;
  bool negated = false;
  std::string InBrackets() const { return fmt::format("[{}{}]", negated ? "^" : "", items); }
};

enum class Place : uint8_t { kOutside, kInClass, kPosixBracket };

Set NamedSet(std::string_view name, bool negated, Place place) {
  if (!name.empty() && name.front() == '^') {
    name.remove_prefix(1);
    negated = !negated;
  }
  std::string folded;
  for (const char c : name) {
    if (c != '_' && c != '-' && c != ' ') folded += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  if (folded == "word" && place != Place::kOutside) folded = "classword";
  if (folded == "punct" && place == Place::kPosixBracket) folded = "posixpunct";
  const auto alias = std::find_if(kAliases.begin(), kAliases.end(), [&](const Alias& a) { return a.name == folded; });
  if (alias != kAliases.end()) return {std::string(alias->items), negated};
  return {fmt::format(R"(\{}{{{}}})", negated ? 'P' : 'p', name), false};
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Result<std::string> Run() {
    while (at_ < in_.size()) BILLFISH_RETURN_IF_ERROR(Next());
    if (!groups_.empty()) return Corrupt("has an unclosed group");
    out_.append(pending_closers_, ')');
    return std::move(out_);
  }

 private:
  struct Group {
    size_t start;            ///< in out_
    size_t pending_closers;  ///< of the group around
  };

  Status Corrupt(std::string_view what) const {
    return {ErrorCode::kCorruptFile, fmt::format("regular expression \"{}\" {} at byte {}", in_, what, at_)};
  }
  char Peek(size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

  void Atom(std::string_view text) {
    atom_ = out_.size();
    quantified_ = false;
    out_ += text;
  }

  Status Next() {
    switch (Peek()) {
      case '\\':
        return Escape();
      case '[': {
        ++at_;
        BILLFISH_ASSIGN_OR_RETURN(const std::string text, Class(0));
        Atom(text);
        return {};
      }
      case '(':
        return Open();
      case ')':
        return Close();
      case '*':
      case '+':
      case '?':
        return Quantifier(in_.substr(at_, 1), 1);
      case '{':
        return Brace();
      default: {
        const size_t length = Utf8At(in_, at_).length;
        Atom(in_.substr(at_, length));
        at_ += length;
        return {};
      }
    }
  }

  /// A second quantifier repeats what the first made, as in {1,3}+; only ? + after * + ? are lazy and possessive forms.
  Status Quantifier(std::string_view text, size_t length) {
    const bool simple = text.size() == 1;
    if (quantified_) {
      out_.insert(atom_, "(?:");
      out_ += ')';
    }
    out_ += text;
    at_ += length;
    quantified_ = true;
    if (simple && (Peek() == '?' || Peek() == '+')) out_ += in_[at_++];
    // {n,m}? is lazy, but {n}? makes {n} optional: leave that one to the next step.
    if (!simple && Peek() == '?' && text.find(',') != std::string_view::npos) out_ += in_[at_++];
    return {};
  }

  Status Brace() {
    const size_t close = in_.find('}', at_);
    const std::string_view body = close == std::string_view::npos ? "" : in_.substr(at_ + 1, close - at_ - 1);
    const size_t comma = body.find(',');
    const auto digits = [](std::string_view s) { return std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; }); };
    const std::string_view low = body.substr(0, comma);
    const std::string_view high = comma == std::string_view::npos ? low : body.substr(comma + 1);
    if (!digits(low) || !digits(high) || (low.empty() && high.empty())) {
      Atom("\\{");
      ++at_;
      return {};
    }
    const std::string text =
        comma == std::string_view::npos ? fmt::format("{{{}}}", low) : fmt::format("{{{},{}}}", low.empty() ? "0" : low, high);
    return Quantifier(text, close + 1 - at_);
  }

  Status Open() {
    groups_.push_back({out_.size(), pending_closers_});
    if (groups_.size() > 200) return Corrupt("nests more than 200 groups");
    pending_closers_ = 0;
    if (Peek(1) != '?') {
      out_ += '(';
      ++at_;
      return {};
    }
    const char kind = Peek(2);
    if (kind == '#') {
      const size_t close = in_.find(')', at_);
      if (close == std::string_view::npos) return Corrupt("has an unclosed comment");
      pending_closers_ = groups_.back().pending_closers;
      groups_.pop_back();
      at_ = close + 1;
      return {};
    }
    if (kind == ':' || kind == '=' || kind == '!' || kind == '>') {
      out_ += in_.substr(at_, 3);
      at_ += 3;
      return {};
    }
    if (kind == '<') {
      const size_t length = Peek(3) == '=' || Peek(3) == '!' ? 4 : 3;
      out_ += in_.substr(at_, length);
      at_ += length;
      return {};
    }
    return Options();
  }

  /// (?imx-imx) and (?imx-imx:...
  Status Options() {
    size_t i = at_ + 2;
    std::string flags;
    while (i < in_.size() && std::string_view("imx-").find(in_[i]) != std::string_view::npos) {
      flags += in_[i] == 'm' ? 's' : in_[i];
      ++i;
    }
    const char end = i < in_.size() ? in_[i] : '\0';
    if (end != ':' && end != ')') {
      return {ErrorCode::kUnsupported,
              fmt::format("regular expression \"{}\" uses \"{}\" at byte {}, which billfish does not know", in_, in_.substr(at_, 4), at_)};
    }
    out_ += fmt::format("(?{}:", flags);
    at_ = i + 1;
    if (end == ')') {
      pending_closers_ = groups_.back().pending_closers + 1;
      groups_.pop_back();
    }
    return {};
  }

  Status Close() {
    if (groups_.empty()) return Corrupt("closes a group that was not opened");
    out_.append(pending_closers_ + 1, ')');
    atom_ = groups_.back().start;
    quantified_ = false;
    pending_closers_ = groups_.back().pending_closers;
    groups_.pop_back();
    ++at_;
    return {};
  }

  /// \s \S \w \W \h \H \p{..} \P{..} at at_: consumes it. Nothing is consumed otherwise.
  Result<std::optional<Set>> SetEscape(Place place) {
    const char c = Peek(1);
    const auto shorthand = [&](std::string_view items, bool negated) {
      at_ += 2;
      return std::optional<Set>(Set{std::string(items), negated});
    };
    if (c == 's' || c == 'S') return shorthand(kSpaceItems, c == 'S');
    if (c == 'w' || c == 'W') return shorthand(place == Place::kOutside ? kWordItems : kWordItemsInClass, c == 'W');
    if (c == 'h' || c == 'H') return shorthand(kHexItems, c == 'H');
    if (c == 'd' || c == 'D') return shorthand(R"(\p{Nd})", c == 'D');
    if ((c == 'p' || c == 'P') && Peek(2) == '{') {
      const size_t close = in_.find('}', at_);
      if (close == std::string_view::npos) return Corrupt("has an unclosed property name");
      const std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
      at_ = close + 1;
      return std::optional<Set>(NamedSet(name, c == 'P', place));
    }
    return std::optional<Set>();
  }

  /// Any other escape at at_, consumed.
  Result<std::string> PlainEscape() {
    if (at_ + 1 >= in_.size()) return Corrupt("ends in a backslash");
    const auto hex_digits = [&](size_t from, size_t most) {
      size_t n = 0;
      while (n < most && std::isxdigit(static_cast<unsigned char>(Peek(from + n)))) ++n;
      return n;
    };
    const char c = Peek(1);
    if (c == 'u' && hex_digits(2, 4) == 4) {
      std::string text = fmt::format(R"(\x{{{}}})", in_.substr(at_ + 2, 4));
      at_ += 6;
      return text;
    }
    size_t length = 1 + Utf8At(in_, at_ + 1).length;
    if (c == 'x') {
      if (Peek(2) == '{') {
        const size_t close = in_.find('}', at_);
        if (close == std::string_view::npos) return Corrupt("has an unclosed character code");
        length = close + 1 - at_;
      } else {
        length = 2 + hex_digits(2, 2);
      }
    } else if ((c == 'k' || c == 'g') && Peek(2) == '<') {
      const size_t close = in_.find('>', at_);
      if (close == std::string_view::npos) return Corrupt("has an unclosed reference");
      length = close + 1 - at_;
    }
    std::string text(in_.substr(at_, length));
    at_ += length;
    return text;
  }

  Status Escape() {
    BILLFISH_ASSIGN_OR_RETURN(const auto set, SetEscape(Place::kOutside));
    if (set) {
      Atom(set->InBrackets());
      return {};
    }
    BILLFISH_ASSIGN_OR_RETURN(const std::string text, PlainEscape());
    Atom(text);
    return {};
  }

  /// A class whose '[' is consumed. Sets that PCRE2's brackets cannot hold become alternatives and look-aheads.
  Result<std::string> Class(int depth) {
    if (depth > kMaxClassDepth) return Corrupt("nests too many character classes");
    const bool negated = Peek() == '^';
    if (negated) ++at_;
    std::vector<std::string> operands;
    std::string items;                // of the current operand
    std::vector<std::string> others;  // bracketed sets united with the items
    bool after_set = false;           // a '-' next to a set is a literal
    const auto finish = [&] {
      if (!items.empty()) others.insert(others.begin(), fmt::format("[{}]", items));
      std::string operand = others[0];
      for (size_t i = 1; i < others.size(); ++i) operand += "|" + others[i];
      operands.push_back(others.size() == 1 ? std::move(operand) : fmt::format("(?:{})", operand));
      items.clear();
      others.clear();
    };
    for (bool first = true;; first = false) {
      if (at_ >= in_.size()) return Corrupt("has an unclosed character class");
      const char c = Peek();
      if (c == ']' && !first) {
        ++at_;
        break;
      }
      if (c == '&' && Peek(1) == '&') {
        at_ += 2;
        if (items.empty() && others.empty()) return Corrupt("intersects with an empty character class");
        finish();
        after_set = false;
        continue;
      }
      if (c == '[') {
        const size_t close = Peek(1) == ':' ? in_.find(":]", at_) : std::string_view::npos;
        if (close != std::string_view::npos) {
          const Set set = NamedSet(in_.substr(at_ + 2, close - at_ - 2), false, Place::kPosixBracket);
          at_ = close + 2;
          Unite(set, items, others);
        } else {
          ++at_;
          BILLFISH_ASSIGN_OR_RETURN(std::string nested, Class(depth + 1));
          others.push_back(std::move(nested));
        }
        after_set = true;
        continue;
      }
      if (c == '\\') {
        BILLFISH_ASSIGN_OR_RETURN(const auto set, SetEscape(Place::kInClass));
        if (set) {
          Unite(*set, items, others);
          after_set = true;
          continue;
        }
        BILLFISH_ASSIGN_OR_RETURN(const std::string text, PlainEscape());
        items += text;
        after_set = false;
        continue;
      }
      const size_t length = Utf8At(in_, at_).length;
      const std::string_view next = in_.substr(at_ + length, 2);
      const bool before_set = !next.empty() && (next[0] == '[' || (next.size() == 2 && next[0] == '\\' &&
                                                                   std::string_view("sSwWhHdDpP").find(next[1]) != std::string_view::npos));
      if (c == ']' || c == '^' || (c == '-' && (after_set || before_set))) items += '\\';
      items += in_.substr(at_, length);
      at_ += length;
      after_set = false;
    }
    if (operands.empty() && others.empty()) {
      if (items.empty()) return Corrupt("has an empty character class");
      return fmt::format("[{}{}]", negated ? "^" : "", items);
    }
    if (items.empty() && others.empty()) return Corrupt("intersects with an empty character class");
    finish();
    std::string conditions;
    for (size_t i = 1; i < operands.size(); ++i) conditions += fmt::format("(?={})", operands[i]);
    const std::string all = conditions + operands[0];
    return negated ? fmt::format("(?:(?!{})(?s:.))", all) : fmt::format("(?:{})", all);
  }

  static void Unite(const Set& set, std::string& items, std::vector<std::string>& others) {
    if (set.negated) {
      others.push_back(set.InBrackets());
    } else {
      items += set.items;
    }
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;          ///< where in out_ the last atom begins
  bool quantified_ = false;  ///< the last atom carries a quantifier already
  std::vector<Group> groups_;
  size_t pending_closers_ = 0;  ///< groups that options without a colon opened inside the current one
};

}  // namespace

Result<std::string> TranslateOniguruma(std::string_view pattern) { return Translator(pattern).Run(); }

}  // namespace billfish::tokenizer
