// The byte-level alphabet: every byte as one printable character, as GPT-2 defined it and tokenizer.json "ByteLevel" uses it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace billfish::tokenizer {

/// Code points of the alphabet are below this.
inline constexpr char32_t kByteAlphabetEnd = 0x144;

/// Bytes 33-126, 161-172 and 174-255 stand for themselves, the other 68 in order for U+0100 and up.
char32_t ByteToAlphabet(uint8_t byte);
/// The byte of a character of the alphabet, or -1.
int AlphabetToByte(char32_t code_point);

/// Every byte of `bytes` as its character, in UTF-8.
void AppendInAlphabet(std::string_view bytes, std::string& out);
/// The bytes that `token` stands for. A token with a character outside the alphabet (an added token) is its own UTF-8 bytes.
void AppendBytesOfToken(std::string_view token, std::string& out);

}  // namespace billfish::tokenizer
