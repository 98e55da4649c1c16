#include "tokenizer/byte_alphabet.h"

#include <array>

#include "tokenizer/unicode.h"

namespace billfish::tokenizer {
namespace {

struct Alphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<int16_t, kByteAlphabetEnd> to_byte{};
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (auto& byte : alphabet.to_byte) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const char32_t code_point = printable ? static_cast<char32_t>(byte) : next++;
    alphabet.of_byte[static_cast<size_t>(byte)] = code_point;
    alphabet.to_byte[code_point] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

char32_t ByteToAlphabet(uint8_t byte) { return kAlphabet.of_byte[byte]; }

int AlphabetToByte(char32_t code_point) { return code_point < kByteAlphabetEnd ? kAlphabet.to_byte[code_point] : -1; }

void AppendInAlphabet(std::string_view bytes, std::string& out) {
  for (const char c : bytes) AppendUtf8(ByteToAlphabet(static_cast<uint8_t>(c)), out);
}

void AppendBytesOfToken(std::string_view token, std::string& out) {
  const size_t start = out.size();
  for (size_t i = 0; i < token.size();) {
    const Utf8Unit unit = Utf8At(token, i);
    const int byte = unit.kind == Utf8Unit::Kind::kCharacter ? AlphabetToByte(unit.code_point) : -1;
    if (byte < 0) {
      out.resize(start);
      out += token;
      return;
    }
    out += static_cast<char>(static_cast<uint8_t>(byte));
    i += unit.length;
  }
}

}  // namespace billfish::tokenizer
