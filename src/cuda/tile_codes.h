// The bits of one code and of one scale in packed form, for the packers of the CPU and the GPU. Freestanding.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// E8M0: the packed code of a row's largest scale, and the smallest with which 0.5 * 2^(b - 253) is a normal bf16.
inline constexpr int kLargestE8M0 = 253;
inline constexpr int kSmallestE8M0 = 128;

/// A scale code of a row whose largest is `base`, for layouts without wide_scales. Codes that fall below belong to groups of zeros.
BILLFISH_HD constexpr uint8_t RebasedE8M0(int code, int base) {
  const int rebased = code + kLargestE8M0 - base;
  return static_cast<uint8_t>(rebased < kSmallestE8M0 ? kSmallestE8M0 : rebased);
}

/// An E4M3 code without its sign as (E + kE5M3Bias) << 3 | M: 2^(E - 9) (1 + M / 8). Zero, whose codes are cleared, gives 2^-9.
BILLFISH_HD constexpr uint8_t E5M3FromE4M3(uint8_t code) {
  const int magnitude = code & 0x7f;
  if (magnitude >= 8) return static_cast<uint8_t>(magnitude + ((kE5M3Bias + 2) << 3));
  if (magnitude == 0) return kE5M3Bias << 3;
  const int exponent = magnitude >= 4 ? 2 : magnitude >= 2 ? 1 : 0;
  return static_cast<uint8_t>((exponent + kE5M3Bias) << 3 | ((magnitude << (3 - exponent)) & 7));
}

/// What becomes of a byte of two E2M1 codes under an E4M3 scale: a negative scale negates the codes, a zero leaves them only their signs,
/// so that even -0 stays what it was.
BILLFISH_HD constexpr uint8_t CodesUnderE4M3(uint8_t pair, uint8_t scale) {
  const int kept = (scale & 0x7f) == 0 ? pair & 0x88 : pair;
  return static_cast<uint8_t>((scale & 0x80) != 0 ? kept ^ 0x88 : kept);
}

/// E8M0 and E4M3 scales as bf16, exactly.
BILLFISH_HD constexpr uint16_t BF16FromE8M0(uint8_t code) { return code == 0 ? uint16_t{0x0040} : static_cast<uint16_t>(code << 7); }
BILLFISH_HD constexpr uint16_t BF16FromE4M3(uint8_t code) {
  const int sign = (code & 0x80) << 8;
  return static_cast<uint16_t>((code & 0x7f) == 0 ? sign : sign | ((E5M3FromE4M3(code) << 4) + ((127 - 9 - kE5M3Bias) << 7)));
}

/// The bits that a byte of two 4-bit codes, columns c (low nibble) and c + 1 (high nibble) of register a_j, gives to a plane's word.
BILLFISH_HD constexpr uint32_t Int4Bits(uint32_t pair, int j) { return (pair & 15u) << (4 * j) | (pair >> 4) << (4 * j + 16); }

BILLFISH_HD constexpr uint32_t E2M1Bits(uint32_t pair, int j) {
  const uint32_t codes = (pair & 15u) | (pair >> 4) << 16;  // s e1 e0 m at bits 3 to 0 of each half
  const uint32_t signs = codes & 0x00080008u, fields = codes & 0x00070007u;
  switch (j) {
    case 0:
      return signs << 10 | fields << 4;
    case 1:
      return signs << 6 | fields;
    case 2:
      return signs << 16 | signs >> 16 | fields << 10;
    default:
      return signs << 12 | (fields & 0x00060006u) << 6 | (fields & 0x00010001u) << 14;
  }
}

}  // namespace billfish::cuda
