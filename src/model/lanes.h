// Sixteen fp32 lanes as a compiler vector: the same arithmetic on every instruction set, lane for lane.
// Everything passes by reference and is always inlined, so that a body takes the instruction set of the function it is inlined into.
#pragma once

#include <cstdint>
#include <cstring>

#define BILLFISH_INLINE [[gnu::always_inline]] inline

namespace billfish::model {

inline constexpr int kLanes = 16;
typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef uint16_t HalfLanes __attribute__((vector_size(32)));

BILLFISH_INLINE void Load(const float* p, Lanes& v) { std::memcpy(&v, p, sizeof v); }
BILLFISH_INLINE void Store(const Lanes& v, float* p) { std::memcpy(p, &v, sizeof v); }
BILLFISH_INLINE void Splat(float x, Lanes& v) { v = Lanes{} + x; }

/// Round to nearest even; v is finite or infinite.
BILLFISH_INLINE void StoreBf16(const Lanes& v, uint16_t* p) {
  IntLanes bits;
  std::memcpy(&bits, &v, sizeof bits);
  bits += 0x7fff + ((bits >> 16) & 1);
  const HalfLanes high = __builtin_convertvector((bits >> 16) & 0xffff, HalfLanes);
  std::memcpy(p, &high, sizeof high);
}

BILLFISH_INLINE uint16_t ToBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/// Adds the lanes as a balanced tree.
BILLFISH_INLINE float Sum(const Lanes& v) {
  float x[kLanes];
  std::memcpy(x, &v, sizeof x);
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) x[i] += x[i + step];
  }
  return x[0];
}

BILLFISH_INLINE float Max(const Lanes& v) {
  float x[kLanes];
  std::memcpy(x, &v, sizeof x);
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) x[i] = x[i] > x[i + step] ? x[i] : x[i + step];
  }
  return x[0];
}

/// v = e^v for v <= 88, within 2 ulp; 0 below -87 (so e^-infinity is 0).
///
///   e^x = 2^n e^r,  n = round(x / ln 2),  r = x - n ln 2,  |r| <= ln 2 / 2
///
/// n comes from adding 1.5 * 2^23, where one ulp is 1; ln 2 is split so that n * kLn2High is exact. The Taylor series of e^r up to r^7
/// is off by r^8 / 8! < 6e-9.
BILLFISH_INLINE void Exp(Lanes& v) {
  constexpr float kRound = 12582912.0f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  const IntLanes tiny = v < -87.0f;
  IntLanes bits;
  std::memcpy(&bits, &v, sizeof bits);
  bits = bits & ~tiny;  // 0 instead of a value whose exponent would underflow
  Lanes x;
  std::memcpy(&x, &bits, sizeof x);
  const Lanes shifted = x * 1.44269504088896341f + kRound;
  const Lanes n = shifted - kRound;
  const Lanes r = (x - n * kLn2High) - n * kLn2Low;
  Lanes y = r * (1.0f / 5040.0f) + (1.0f / 720.0f);
  y = y * r + (1.0f / 120.0f);
  y = y * r + (1.0f / 24.0f);
  y = y * r + (1.0f / 6.0f);
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  IntLanes exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  exponent = (exponent << 23) + (127 << 23);  // the low bits of `shifted` are n; what lies above them is shifted out
  Lanes scale;
  std::memcpy(&scale, &exponent, sizeof scale);
  y *= scale;
  std::memcpy(&bits, &y, sizeof bits);
  bits = bits & ~tiny;
  std::memcpy(&v, &bits, sizeof v);
}

}  // namespace billfish::model
