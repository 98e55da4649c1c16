// 16-bit floats on the device without the toolkit's headers: pairs in a register, low half first.
//
// BF_ACT picks the activation type of a kernel: 0 = bf16, 1 = fp16. Everything named Pair works on that type.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

inline constexpr bool kHalf = BF_ACT == 1;

__device__ __forceinline__ float AsFloat(uint32_t bits) { return __uint_as_float(bits); }

__device__ __forceinline__ float FloatFromBF16(uint32_t low16) { return AsFloat(low16 << 16); }

__device__ __forceinline__ float FloatFromF16(uint32_t low16) {
  float value;
  asm("{ .reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h; }" : "=f"(value) : "r"(low16));
  return value;
}

/// Rounds to nearest, ties to even.
__device__ __forceinline__ uint32_t BF16PairFromFloats(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/// Rounds to nearest, ties to even; beyond 65504 becomes infinite.
__device__ __forceinline__ uint32_t F16PairFromFloats(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ __forceinline__ uint32_t PairFromFloats(float low, float high) {
  if constexpr (kHalf) return F16PairFromFloats(low, high);
  return BF16PairFromFloats(low, high);
}

__device__ __forceinline__ float LowOfPair(uint32_t pair) {
  if constexpr (kHalf) return FloatFromF16(pair & 0xffffu);
  return FloatFromBF16(pair);
}

__device__ __forceinline__ float HighOfPair(uint32_t pair) {
  if constexpr (kHalf) return FloatFromF16(pair >> 16);
  return AsFloat(pair & 0xffff0000u);
}

/// a * b, each half rounded once. Subnormals count on both sides. sm_80 has no bf16 multiplication: a * b + (-0) keeps the sign of zero.
__device__ __forceinline__ uint32_t MultiplyPairs(uint32_t a, uint32_t b) {
  uint32_t product;
  if constexpr (kHalf) {
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  } else {
#if __CUDA_ARCH__ >= 900
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
#else
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000u));
#endif
  }
  return product;
}

/// a * the low (high) half of b, each half rounded once. The instruction picks the half itself.
__device__ __forceinline__ uint32_t MultiplyByLow(uint32_t a, uint32_t b) {
  uint32_t both;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {l, l}; }" : "=r"(both) : "r"(b));
  return MultiplyPairs(a, both);
}
__device__ __forceinline__ uint32_t MultiplyByHigh(uint32_t a, uint32_t b) {
  uint32_t both;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {h, h}; }" : "=r"(both) : "r"(b));
  return MultiplyPairs(a, both);
}

/// a * b + c, each half rounded once.
__device__ __forceinline__ uint32_t MultiplyAddPairs(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t sum;
  if constexpr (kHalf) {
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  } else {
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  }
  return sum;
}

/// a - b, each half rounded once.
__device__ __forceinline__ uint32_t SubtractPairs(uint32_t a, uint32_t b) {
  uint32_t difference;
  if constexpr (kHalf) {
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
  } else {
#if __CUDA_ARCH__ >= 900
    asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
#else
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(difference) : "r"(b), "r"(0xbf80bf80u), "r"(a));
#endif
  }
  return difference;
}

}  // namespace billfish::cuda
