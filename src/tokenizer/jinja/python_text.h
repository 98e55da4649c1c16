// Python's str operations on UTF-8: positions and lengths count characters.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billfish::tokenizer::jinja {

/// str.isspace of one character: White_Space and the four ASCII separators 0x1C-0x1F.
bool IsPythonSpace(char32_t c);

std::string_view StripLeft(std::string_view text);
std::string_view StripRight(std::string_view text);
/// Strips any of the characters of `characters`.
std::string_view StripLeft(std::string_view text, std::string_view characters);
std::string_view StripRight(std::string_view text, std::string_view characters);

/// The characters as separate views.
std::vector<std::string_view> Characters(std::string_view text);

/// Byte offset of `what` in text at or behind `from`, or npos; linear time, unlike string_view::find.
size_t FindText(std::string_view text, std::string_view what, size_t from = 0);
/// At most `count` replacements; negative: all. An empty `from` matches between all characters.
std::string ReplaceText(std::string_view text, std::string_view from, std::string_view to, int64_t count);
int64_t CountText(std::string_view text, std::string_view what);

/// str.split / rsplit. No separator: at runs of white space. Precondition: separator not empty.
std::vector<std::string_view> SplitText(std::string_view text, std::optional<std::string_view> separator, int64_t max_splits,
                                        bool from_right);
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);

std::string UpperText(std::string_view text);
std::string LowerText(std::string_view text);
/// First character upper, the others lower case.
std::string CapitalizeText(std::string_view text);
/// str.title: every character behind a letter lower, every other upper case.
std::string TitleText(std::string_view text);
bool IsUpperLetter(char32_t c);
bool IsLowerLetter(char32_t c);
bool IsLetter(char32_t c);

}  // namespace billfish::tokenizer::jinja
