// UTF-8 and the few character classes that tokenizer files rely on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace billfish::tokenizer {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// One step through a byte string.
struct Utf8Unit {
  enum class Kind : uint8_t {
    kCharacter,  ///< a well-formed character of `length` bytes
    kInvalid,    ///< `length` bytes that stand for one U+FFFD (Unicode 15, 3.9: substitution of maximal subparts)
    kTruncated,  ///< the string ends inside a so far well-formed character
  };
  Kind kind;
  size_t length;        ///< >= 1
  char32_t code_point;  ///< U+FFFD unless kCharacter
};

/// The unit at `position`. Precondition: position < text.size().
Utf8Unit Utf8At(std::string_view text, size_t position);

/// Offset of the first byte that is not well-formed UTF-8, or npos.
size_t FindInvalidUtf8(std::string_view text);

/// Invalid and truncated parts become U+FFFD.
std::string ToValidUtf8(std::string_view bytes);

/// Precondition: a scalar value (not a surrogate, at most U+10FFFF).
void AppendUtf8(char32_t code_point, std::string& out);

size_t CountCharacters(std::string_view valid_utf8);

/// Property White_Space.
bool IsSpace(char32_t c);
/// General category N.
bool IsNumeric(char32_t c);
/// General category P, or an ASCII symbol.
bool IsPunctuation(char32_t c);
/// \w of Unicode Technical Standard 18: letters, marks, decimal digits, connector punctuation, joiners.
bool IsWordCharacter(char32_t c);

}  // namespace billfish::tokenizer
