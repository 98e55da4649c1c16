#include "tokenizer/jinja/python_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

#include "tokenizer/unicode.h"

namespace billfish::tokenizer::jinja {
namespace {

size_t LastCharacter(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

template <class Matches>
std::string_view StripLeftWhile(std::string_view text, Matches matches) {
  while (!text.empty()) {
    const Utf8Unit unit = Utf8At(text, 0);
    if (!matches(text.substr(0, unit.length), unit.code_point)) break;
    text.remove_prefix(unit.length);
  }
  return text;
}

template <class Matches>
std::string_view StripRightWhile(std::string_view text, Matches matches) {
  while (!text.empty()) {
    const size_t last = LastCharacter(text);
    if (!matches(text.substr(last), Utf8At(text, last).code_point)) break;
    text = text.substr(0, last);
  }
  return text;
}

bool IsBlank(std::string_view, char32_t c) { return IsPythonSpace(c); }

utf8proc_category_t Category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

void AppendUpper(char32_t c, std::string& out) {
  if (c == 0xDF) {
    out += "SS";
  } else {
    AppendUtf8(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
  }
}

void AppendLower(char32_t c, std::string& out) {
  if (c == 0x130) {
    out += "i\xCC\x87";
  } else {
    AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
  }
}

template <class Append>
std::string MapCharacters(std::string_view text, Append append) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    append(unit.code_point, out);
    i += unit.length;
  }
  return out;
}

}  // namespace

bool IsPythonSpace(char32_t c) { return IsSpace(c) || (c >= 0x1C && c <= 0x1F); }

std::string_view StripLeft(std::string_view text) { return StripLeftWhile(text, IsBlank); }
std::string_view StripRight(std::string_view text) { return StripRightWhile(text, IsBlank); }

std::string_view StripLeft(std::string_view text, std::string_view characters) {
  return StripLeftWhile(text, [&](std::string_view c, char32_t) { return characters.find(c) != std::string_view::npos; });
}
std::string_view StripRight(std::string_view text, std::string_view characters) {
  return StripRightWhile(text, [&](std::string_view c, char32_t) { return characters.find(c) != std::string_view::npos; });
}

std::vector<std::string_view> Characters(std::string_view text) {
  std::vector<std::string_view> characters;
  characters.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8At(text, i).length;
    characters.push_back(text.substr(i, length));
    i += length;
  }
  return characters;
}

size_t FindText(std::string_view text, std::string_view what, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (what.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, what.data(), what.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : std::string_view::npos;
}

std::string ReplaceText(std::string_view text, std::string_view from, std::string_view to, int64_t count) {
  std::string out;
  size_t done = 0;
  if (from.empty()) {
    for (size_t i = 0; i <= text.size() && count != 0; --count) {
      out.append(text, done, i - done).append(to);
      done = i;
      i += i < text.size() ? Utf8At(text, i).length : 1;
    }
  } else {
    for (size_t at = FindText(text, from); at != std::string_view::npos && count != 0; at = FindText(text, from, done), --count) {
      out.append(text, done, at - done).append(to);
      done = at + from.size();
    }
  }
  return out.append(text, done);
}

int64_t CountText(std::string_view text, std::string_view what) {
  if (what.empty()) return static_cast<int64_t>(CountCharacters(text)) + 1;
  int64_t count = 0;
  for (size_t at = FindText(text, what); at != std::string_view::npos; at = FindText(text, what, at + what.size())) ++count;
  return count;
}

std::vector<std::string_view> SplitText(std::string_view text, std::optional<std::string_view> separator, int64_t max_splits,
                                        bool from_right) {
  std::vector<std::string_view> parts;
  const auto may_split = [&] { return max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits; };
  if (separator && !from_right) {
    size_t at = 0;
    for (size_t next; may_split() && (next = FindText(text, *separator, at)) != std::string_view::npos; at = next + separator->size()) {
      parts.push_back(text.substr(at, next - at));
    }
    parts.push_back(text.substr(at));
  } else if (separator) {
    // Separators can overlap themselves, so the rightmost ones are looked for from the right.
    for (size_t next; may_split() && (next = text.rfind(*separator)) != std::string_view::npos; text = text.substr(0, next)) {
      parts.push_back(text.substr(next + separator->size()));
    }
    parts.push_back(text);
    std::reverse(parts.begin(), parts.end());
  } else if (!from_right) {
    const auto is_word = [](std::string_view, char32_t c) { return !IsPythonSpace(c); };
    for (text = StripLeft(text); !text.empty() && may_split(); text = StripLeft(text)) {
      const std::string_view rest = StripLeftWhile(text, is_word);
      parts.push_back(text.substr(0, text.size() - rest.size()));
      text = rest;
    }
    if (!text.empty()) parts.push_back(text);
  } else {
    const auto is_word = [](std::string_view, char32_t c) { return !IsPythonSpace(c); };
    for (text = StripRight(text); !text.empty() && may_split(); text = StripRight(text)) {
      const std::string_view rest = StripRightWhile(text, is_word);
      parts.push_back(text.substr(rest.size()));
      text = rest;
    }
    if (!text.empty()) parts.push_back(text);
    std::reverse(parts.begin(), parts.end());
  }
  return parts;
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    const char32_t c = unit.code_point;
    const size_t end = i;
    i += unit.length;
    if (!((c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029)) continue;
    if (c == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.push_back(text.substr(begin, (keep_ends ? i : end) - begin));
    begin = i;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string UpperText(std::string_view text) { return MapCharacters(text, AppendUpper); }
std::string LowerText(std::string_view text) { return MapCharacters(text, AppendLower); }

std::string CapitalizeText(std::string_view text) {
  if (text.empty()) return {};
  const size_t first = Utf8At(text, 0).length;
  std::string out;
  AppendUtf8(static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(Utf8At(text, 0).code_point))), out);
  return out + LowerText(text.substr(first));
}

std::string TitleText(std::string_view text) {
  bool inside = false;
  return MapCharacters(text, [&](char32_t c, std::string& out) {
    if (inside) {
      AppendLower(c, out);
    } else {
      AppendUtf8(static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))), out);
    }
    inside = IsUpperLetter(c) || IsLowerLetter(c);
  });
}

bool IsUpperLetter(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_LU || Category(c) == UTF8PROC_CATEGORY_LT; }
bool IsLowerLetter(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_LL; }
bool IsLetter(char32_t c) { return Category(c) >= UTF8PROC_CATEGORY_LU && Category(c) <= UTF8PROC_CATEGORY_LO; }

}  // namespace billfish::tokenizer::jinja
