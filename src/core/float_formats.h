// Small float formats <-> fp32, bit by bit: bf16, fp16, E4M3FN, E8M0 and E2M1. Decoding is exact; encoding rounds to nearest, ties to even.
//
// Sources: IEEE 754 binary16; bfloat16 = the upper half of binary32; OCP FP8 v1.0 (E4M3: bias 7, no infinity, NaN = 0x7F and 0xFF);
// OCP Microscaling v1.0 (E8M0: 2^(byte-127), 255 = NaN; E2M1: 0 .5 1 1.5 2 3 4 6 and the same negated).
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>

namespace billfish {

inline constexpr float kE2M1Max = 6.0f;
inline constexpr float kE4M3Max = 448.0f;
inline constexpr float kF16Max = 65504.0f;

/// Value of each nibble.
inline constexpr std::array<float, 16> kE2M1Values = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                                      -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

inline float F32FromBF16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

/// A NaN stays a (quiet) NaN with its sign; values beyond the largest bf16 become infinite.
inline uint16_t BF16FromF32(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

inline float F32FromF16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7FFFu;
  if (magnitude >= 0x7C00u) return std::bit_cast<float>(sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13));
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;  // exact: at most 10 bits
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
}

/// A NaN stays a (quiet) NaN with its sign; 65520 and above become infinite.
inline uint16_t F16FromF32(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude < 0x38800000u) {
    // Below 2^-14 one step is 2^-24, and 2^-24 is one ulp of 0.5: the addition rounds to a multiple of it.
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3F000000u));
  }
  return static_cast<uint16_t>(sign | ((magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13));
}

inline constexpr bool IsE4M3Nan(uint8_t code) { return (code & 0x7Fu) == 0x7Fu; }

inline float F32FromE4M3(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t magnitude = code & 0x7Fu;
  if (magnitude == 0x7Fu) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (magnitude >= 0x08u) return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-9f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
}

/// Saturates: 448 and above (infinity too) give 448. A NaN gives 0x7F with its sign.
inline uint8_t E4M3FromF32(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint8_t>(sign | 0x7Fu);
  if (magnitude >= 0x43E00000u) return static_cast<uint8_t>(sign | 0x7Eu);
  if (magnitude < 0x3C800000u) {
    // Below 2^-6 one step is 2^-9, and 2^-9 is one ulp of 2^14.
    const float rounded = std::bit_cast<float>(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(rounded) - std::bit_cast<uint32_t>(0x1p14f)));
  }
  return static_cast<uint8_t>(sign | ((magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u) - (120u << 23)) >> 20));
}

/// 2^(byte - 127). Byte 0 is 2^-127, an fp32 subnormal; byte 255 is NaN.
inline float F32FromE8M0(uint8_t byte) {
  if (byte == 0) return 0x1p-127f;
  if (byte == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(static_cast<uint32_t>(byte) << 23);
}

/// The value of a nibble 0..15.
inline float F32FromE2M1(uint8_t nibble) { return kE2M1Values[nibble & 0xFu]; }

/// Saturates to 6. Precondition: not NaN (E2M1 has none).
inline uint8_t E2M1FromF32(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const float a = std::bit_cast<float>(bits & 0x7FFFFFFFu);
  // A tie goes to the even code, as codes: .25 -> 0, .75 -> 2, 1.25 -> 2, 1.75 -> 4, 2.5 -> 4, 3.5 -> 6, 5 -> 6.
  const int code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) + (a >= 3.5f) + (a > 5.0f);
  return static_cast<uint8_t>(code | static_cast<int>((bits >> 28) & 8u));
}

}  // namespace billfish
