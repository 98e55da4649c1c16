// Register-level expansion of packed codes into vdpbf16ps operands: 16 rows x (k, k + 1) bf16 per zmm.
//
// Lookup. vpermw indexes a table of 32 words with bits 4:0 of each index word. Four codes share a word, so after a right shift by 4j
// bits 3:0 hold code j and bit 4 is a bit of its neighbour; a table whose halves are equal makes bit 4 meaningless and saves the AND.
//
// Powers of two (MXFP4). bf16 is sign | exponent 8 | mantissa 7, so v * 2^-d subtracts d << 7 from the bits of v != 0. Unsigned
// saturating subtraction (vpsubusw) maps 0 to 0; code 8 (-0) is looked up as +0 because 0x8000 would not saturate.
//
// E5M3 scales (NVFP4; panel_layout.h). Every E2M1 magnitude is 2^j, 1.5 * 2^j or 0, and s = (1 + m/8) 2^e and 1.5 s are exact in bf16.
//   v = 2^j        bits(v s) = bits(v) - drop,          drop = bits(1) - bits(s)
//   v = 1.5 * 2^j  bits(v s) = bits(v) - drop + c,      c = (bits(1.5 s) - bits(s)) - (bits(1.5) - bits(1))
// c depends on m alone: with 7 mantissa bits it is 8 m while 1.5 (1 + m/8) < 2 (m <= 2) and 32 - 4 m after the carry, so it lies in bits
// 2 to 4. The table holds ones there for 1.5 * 2^j and zeros for 2^j, whose mantissa ends above them: one AND with ~(c ^ ones) adds c to
// the former alone. Drops are made non-negative by looking v up as 512 v (the largest E4M3 is 448), and zero again saturates to zero. The
// smallest result is 2^-10: no subnormals. s = 0 does not occur (packing zeroes its codes instead).
//
// On Zen 5 the dots own vector pipes 0 and 1, of which a shuffle or a saturating subtraction takes up to a third of a slot away, the less
// the further before its dots it stands; shifts, logic, additions of integers and of fp32 take none, a multiplication a whole one. (max(a,
// b) - b takes none either, yet loses by being one more operation.)
#pragma once

#include <immintrin.h>

#include <array>
#include <cstdint>

#include "cpu/panel_layout.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12: _mm512_undefined_* inside its own headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace billfish::cpu {
namespace {

#define BILLFISH_INLINE inline __attribute__((always_inline))

struct alignas(64) WordTable {
  uint16_t entry[32];
};

/// bits of E2M1 code c times 2^shift as bf16, -0 as +0.
constexpr uint16_t Bf16OfE2M1(int c, int shift) {
  constexpr uint16_t kOne = 0x3F80;
  constexpr uint16_t kMagnitude[8] = {0, kOne - 0x80, kOne, kOne + 0x40, kOne + 0x80, kOne + 0xC0, kOne + 0x100, kOne + 0x140};
  if ((c & 7) == 0) return 0;
  return uint16_t((c & 8 ? 0x8000 : 0) | (kMagnitude[c & 7] + shift * 0x80));
}

/// bits of a small integer (|v| <= 16) as bf16.
constexpr uint16_t Bf16OfInteger(int v) {
  if (v == 0) return 0;
  const int magnitude = v < 0 ? -v : v;
  int exponent = 0;
  while ((magnitude >> (exponent + 1)) != 0) ++exponent;
  const int mantissa = (magnitude << (7 - exponent)) & 0x7F;
  return uint16_t((v < 0 ? 0x8000 : 0) | ((127 + exponent) << 7) | mantissa);
}

constexpr WordTable E2M1Table(int shift) {
  WordTable t{};
  for (int i = 0; i < 32; ++i) t.entry[i] = Bf16OfE2M1(i & 15, shift);
  return t;
}
inline constexpr uint16_t kCarryBits = 0x1C;
constexpr WordTable E2M1CarryTable() {  // 512 v, with ones in kCarryBits where the magnitude is 1.5 * 2^j
  WordTable t{};
  for (int i = 0; i < 32; ++i) {
    const uint16_t bits = Bf16OfE2M1(i & 15, 9);
    t.entry[i] = uint16_t(bits | (bits & 0x40 ? kCarryBits : 0));
  }
  return t;
}
constexpr WordTable CarryMaskTable() {  // indexed by a scale byte mod 32: what E2M1CarryTable() entries are ANDed with
  WordTable t{};
  for (int i = 0; i < 32; ++i) {
    const int m = i & 7, carry = m <= 2 ? 8 * m : 32 - 4 * m;
    t.entry[i] = uint16_t(~(carry ^ kCarryBits));
  }
  return t;
}
constexpr WordTable IntegerTable(bool sixteen_steps) {  // q - 8 repeated, or index - 16
  WordTable t{};
  for (int i = 0; i < 32; ++i) t.entry[i] = Bf16OfInteger(sixteen_steps ? (i & 15) - 8 : i - 16);
  return t;
}
inline constexpr WordTable kE2M1 = E2M1Table(0), kE2M1Carry = E2M1CarryTable(), kCarryMask = CarryMaskTable();
inline constexpr WordTable kIntegerSymmetric = IntegerTable(true), kIntegerShifted = IntegerTable(false);

/// E4M3 magnitude -> high and low byte of its bf16 bits.
struct alignas(64) ByteTables {
  uint8_t high[128], low[128];
};
constexpr ByteTables E4M3Bytes() {
  ByteTables t{};
  for (int b = 0; b < 128; ++b) {
    int bits = 0;
    const int exponent = b >> 3, mantissa = b & 7;
    if (b == 127) {
      bits = 0x7FC0;  // NaN
    } else if (exponent > 0) {
      bits = ((exponent - 7 + 127) << 7) | (mantissa << 4);
    } else if (mantissa > 0) {  // m * 2^-9
      const int top = mantissa >= 4 ? 2 : mantissa >= 2 ? 1 : 0;
      bits = ((127 - 9 + top) << 7) | ((mantissa << (7 - top)) & 0x7F);
    }
    t.high[b] = uint8_t(bits >> 8);
    t.low[b] = uint8_t(bits & 0xFF);
  }
  return t;
}
inline constexpr ByteTables kE4M3Bytes = E4M3Bytes();

BILLFISH_INLINE __m512i Load(const void* p) { return _mm512_loadu_si512(p); }
BILLFISH_INLINE __m512i BothWords(__m512i low) { return _mm512_or_si512(low, _mm512_slli_epi32(low, 16)); }  // dwords < 2^16

/// 16 scales -> fp32.
BILLFISH_INLINE __m512 ScaleVector(Scales kind, const uint8_t* p) {
  switch (kind) {
    case Scales::kExponent: {  // 2^-d, d <= 120
      const __m512i d = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(127), d), 23));
    }
    case Scales::kE5M3: {
      const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
      return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(b, 20), _mm512_set1_epi32((127 - kE5M3Bias) << 23)));
    }
    case Scales::kBF16:
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
    case Scales::kF16:
      return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    case Scales::kF32:
      return _mm512_loadu_ps(p);
    case Scales::kNone:
      break;
  }
  return _mm512_set1_ps(1.0f);
}

// Each code policy: kPairs operands per 64-byte unit, state shared by a whole tile (tables), state of one chunk and half panel.
// kReady: the stored bytes are operands already; keeping a copy of them gains nothing.
// kManyRegisters: these need so many that the tile must be careful with its own.
// kGroupScale: the scale is not inside the operands; the tile multiplies the sums of each chunk by ScaleVector().

struct E2M1Plain {
  static constexpr bool kReady = false;
  static constexpr int kPairs = 4;
  static constexpr bool kManyRegisters = false;
  struct Shared {
    __m512i table = Load(&kE2M1);
  };
  struct Chunk {};
  static BILLFISH_INLINE Chunk Begin(const uint8_t*, const uint8_t*) { return {}; }
  template <int kPair>
  static BILLFISH_INLINE __m512i Expand(__m512i raw, const Shared& s, const Chunk&) {
    return _mm512_permutexvar_epi16(kPair == 0 ? raw : _mm512_srli_epi16(raw, 4 * kPair), s.table);
  }
};

struct E2M1Exponent {
  static constexpr bool kReady = false;
  static constexpr int kPairs = 4;
  static constexpr bool kManyRegisters = false;
  struct Shared {
    __m512i table = Load(&kE2M1);
  };
  struct Chunk {
    __m512i drop;
  };
  static BILLFISH_INLINE Chunk Begin(const uint8_t* scales, const uint8_t*) {
    const __m512i d = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
    return {BothWords(_mm512_slli_epi32(d, 7))};
  }
  template <int kPair>
  static BILLFISH_INLINE __m512i Expand(__m512i raw, const Shared& s, const Chunk& c) {
    return _mm512_subs_epu16(_mm512_permutexvar_epi16(kPair == 0 ? raw : _mm512_srli_epi16(raw, 4 * kPair), s.table), c.drop);
  }
};

struct E2M1TimesE5M3 {
  static constexpr bool kReady = false;
  static constexpr int kPairs = 4;
  static constexpr bool kManyRegisters = false;
  struct Shared {
    __m512i table = Load(&kE2M1Carry);
  };
  struct Chunk {
    __m512i drop, carry_mask;
  };
  static BILLFISH_INLINE Chunk Begin(const uint8_t* scales, const uint8_t*) {
    const __m512i b = BothWords(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))));
    // bits(512) - bits(s), bits(s) = (b << 4) + ((127 - bias) << 7)
    const __m512i drop = _mm512_sub_epi16(_mm512_set1_epi16((9 + kE5M3Bias) << 7), _mm512_slli_epi16(b, 4));
    return {drop, _mm512_permutexvar_epi16(b, Load(&kCarryMask))};
  }
  template <int kPair>
  static BILLFISH_INLINE __m512i Expand(__m512i raw, const Shared& s, const Chunk& c) {
    const __m512i value = _mm512_permutexvar_epi16(kPair == 0 ? raw : _mm512_srli_epi16(raw, 4 * kPair), s.table);
    return _mm512_subs_epu16(_mm512_and_si512(value, c.carry_mask), c.drop);
  }
};

struct Int4Symmetric {
  static constexpr bool kReady = false;
  static constexpr int kPairs = 4;
  static constexpr bool kManyRegisters = false;
  struct Shared {
    __m512i table = Load(&kIntegerSymmetric);
  };
  struct Chunk {};
  static BILLFISH_INLINE Chunk Begin(const uint8_t*, const uint8_t*) { return {}; }
  template <int kPair>
  static BILLFISH_INLINE __m512i Expand(__m512i raw, const Shared& s, const Chunk&) {
    return _mm512_permutexvar_epi16(kPair == 0 ? raw : _mm512_srli_epi16(raw, 4 * kPair), s.table);
  }
};

struct Int4WithZero {  // index = q - zero + 16 lies in 0..31 for q = 0..15 and zero = 0..16
  static constexpr bool kReady = false;
  static constexpr int kPairs = 4;
  static constexpr bool kManyRegisters = true;
  struct Shared {
    __m512i table = Load(&kIntegerShifted), mask = _mm512_set1_epi16(15);
  };
  struct Chunk {
    __m512i offset;
  };
  static BILLFISH_INLINE Chunk Begin(const uint8_t*, const uint8_t* zeros) {
    const __m512i z = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros)));
    return {_mm512_sub_epi16(_mm512_set1_epi16(16), BothWords(z))};
  }
  template <int kPair>
  static BILLFISH_INLINE __m512i Expand(__m512i raw, const Shared& s, const Chunk& c) {
    const __m512i code = _mm512_and_si512(kPair == 0 ? raw : _mm512_srli_epi16(raw, 4 * kPair), s.mask);
    return _mm512_permutexvar_epi16(_mm512_add_epi16(code, c.offset), s.table);
  }
};

struct E4M3Codes {
  static constexpr bool kReady = false;
  static constexpr int kPairs = 2;
  static constexpr bool kManyRegisters = true;
  struct Shared {
    __m512i high0 = Load(kE4M3Bytes.high), high1 = Load(kE4M3Bytes.high + 64);
    __m512i low0 = Load(kE4M3Bytes.low), low1 = Load(kE4M3Bytes.low + 64), sign = _mm512_set1_epi8(char(0x80));
  };
  struct Chunk {};
  static BILLFISH_INLINE Chunk Begin(const uint8_t*, const uint8_t*) { return {}; }
  template <int kPair>
  static BILLFISH_INLINE __m512i Expand(__m512i raw, const Shared& s, const Chunk&) {
    const __m512i low = _mm512_permutex2var_epi8(s.low0, raw, s.low1);  // index bits 6:0, the sign bit is ignored
    const __m512i high = _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(s.high0, raw, s.high1), raw, s.sign, 0xF8);  // a | (b & c)
    return kPair == 0 ? _mm512_unpacklo_epi8(low, high) : _mm512_unpackhi_epi8(low, high);
  }
};

struct Bf16Codes {
  static constexpr bool kReady = true;
  static constexpr int kPairs = 1;
  static constexpr bool kManyRegisters = false;
  struct Shared {};
  struct Chunk {};
  static BILLFISH_INLINE Chunk Begin(const uint8_t*, const uint8_t*) { return {}; }
  template <int kPair>
  static BILLFISH_INLINE __m512i Expand(__m512i raw, const Shared&, const Chunk&) {
    return raw;
  }
};

}  // namespace
}  // namespace billfish::cpu
