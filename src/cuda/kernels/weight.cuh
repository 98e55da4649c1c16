// A packed weight in registers: the codes of a thread -> the A operand of a tensor-core step, in bf16 or fp16 (BF_ACT), exactly.
//
// The packed form is drawn in cuda/tile_layout.h. A kernel is compiled for one layout by the macros
//   BF_CODES  BF_SCALE  BF_GROUP  BF_ZEROS  BF_WIDE      the weight's TileLayout
// and calls, for each unit of a panel, warp w (rows 16 w ..) of the panel's four, lane l, q = l / 4:
//
//   RowScales scales = LoadRowScales(unit, w, q);
//   for block, plane:   DecodePlane(words, scales, block, plane, a);   Mma(d, a, b);
//   where kScaleOnAccumulator, after the last plane of group g:        y[half] += AccumulatorScale(scales, half, g) * d[half], d = 0
//
// What DecodePlane returns is exact: no bit of code, zero point or scale is lost before the multiplication by the activation.
//   int4   q - zero, an integer of at most 5 bits, times 2^-6 in bf16 with scales. A scale has 8 or more bits, so it is left for the
//          accumulator, and undoes the power of two; from 2^122 on it becomes infinite.
//   e2m1   value * scale * 2^-9 (E4M3 scales: 2 + 4 bits) or value * 2^(b - 253) (E8M0: 2 bits); row_scale undoes the power of two.
//          With a 16- or 32-bit scale: the value, and the scale is left for the accumulator.
//   e4m3   the value (4 bits, subnormals too); scale on the accumulator. NaN codes are refused before a weight is packed.
//   16 bit the code itself; its type must be the activations'.
//
// Instructions a thread for 8 weights, scales included (scale bytes are expanded once a group and row):
//   int4              1 SHF + 4 LOP3 + 4 HFMA2                       = 9       zero points: + 4 a group
//   e2m1 bf16         2 SHF + 2 IMAD + 5 LOP3 + 4 HMUL2              = 13      + 2 a group (E8M0, E4M3); wide: + 4 and 4 HMUL2
//   e2m1 fp16         3 SHF + 5 IMAD + 9 LOP3 + 4 HMUL2              = 21      + 2 a group
//   e4m3              2 SHF + 4 IMAD + 8 LOP3 + 4 HMUL2              = 18
//   16 bit            0
#pragma once

#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

inline constexpr TileLayout kLayout{static_cast<TileCodes>(BF_CODES), static_cast<TileScale>(BF_SCALE), BF_GROUP, BF_ZEROS != 0,
                                    BF_WIDE != 0};

inline constexpr bool kScaleOnAccumulator = kLayout.scale_size() >= 2;
/// 32-bit words of codes that a thread owns in a block, and of one plane. words[kPlaneWords * plane] is the first of a plane.
inline constexpr int kBlockWords = kLayout.code_bits();
inline constexpr int kPlaneWords = kBlockWords / kPlanes;
/// Columns of a unit, and blocks.
inline constexpr int kUnitK = kLayout.unit_k(), kUnitBlocks = kUnitK / kBlockK;

static_assert(kLayout.codes != TileCodes::kBF16 || !kHalf, "bf16 weights need bf16 activations");
static_assert(kLayout.codes != TileCodes::kF16 || kHalf, "fp16 weights need fp16 activations");
static_assert(kLayout.scale != TileScale::kE8M0 || !kHalf, "E8M0 scales exceed the range of fp16");
static_assert(kScaleOnAccumulator || kLayout.scale == TileScale::kNone || kLayout.codes == TileCodes::kE2M1,
              "one-byte scales are folded into E2M1 codes only");

/// Scales and zero points of rows 16 w + q (half 0) and 16 w + q + 8 (half 1) for one unit, as stored: index half * groups + group.
struct RowScales {
  static constexpr int kScaleBytes = 2 * kLayout.groups() * kLayout.scale_size();
  static constexpr int kZeroBytes = kLayout.zeros ? 2 * kLayout.groups() : 0;
  uint32_t scales[kScaleBytes < 4 ? 1 : kScaleBytes / 4];
  uint32_t zeros[kZeroBytes < 4 ? 1 : kZeroBytes / 4];
};

namespace weight_detail {

/// kBytes = 2, 4, 8, 16, 32 bytes at an address aligned to them (32: to 16), in the widest loads.
template <int kBytes>
__device__ __forceinline__ void LoadBytes(const uint8_t* from, uint32_t* words) {
  if constexpr (kBytes == 2) {
    words[0] = *reinterpret_cast<const uint16_t*>(from);
  } else if constexpr (kBytes == 4) {
    words[0] = *reinterpret_cast<const uint32_t*>(from);
  } else if constexpr (kBytes == 8) {
    const uint2 v = *reinterpret_cast<const uint2*>(from);
    words[0] = v.x, words[1] = v.y;
  } else {
    static_assert(kBytes == 16 || kBytes == 32);
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      const uint4 v = reinterpret_cast<const uint4*>(from)[i];
      words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
    }
  }
}

/// Byte i of the array in the low byte of both halves of a register: 0x00bb00bb.
__device__ __forceinline__ uint32_t BroadcastByte(const uint32_t* words, int i) {
  const uint32_t byte = static_cast<uint32_t>(i % 4);
  return __byte_perm(words[i / 4], 0, 0x4040u | byte | byte << 8);
}

/// The group of a block's plane inside the unit.
__device__ __forceinline__ constexpr int GroupOf(int block, int plane) {
  return kLayout.group == 0 ? 0 : (block * kBlockK + plane * 16) / (kLayout.group == 0 ? 1 : kLayout.group);
}

/// x << kBits as a multiplication by a number that a host could change, of which the compiler cannot make a shift: shifts compete with the
/// masks for the pipe that decoding is bound by, multiplications have one of their own. Each launch fetches that number anew, so a kernel
/// that is soon over and waits for memory anyway defines BF_SHIFTS.
#ifdef BF_SHIFTS
template <int kBits>
__device__ __forceinline__ uint32_t ShiftLeft(uint32_t x) {
  return x << kBits;
}
#else
__constant__ uint32_t powers_of_two[] = {1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9};
template <int kBits>
__device__ __forceinline__ uint32_t ShiftLeft(uint32_t x) {
  return x * powers_of_two[kBits];
}
#endif

/// (x & mask) | base in one instruction: left alone, the compiler spends two to keep both constants immediate.
__device__ __forceinline__ uint32_t MaskOr(uint32_t x, uint32_t mask, uint32_t base) {
  uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(out) : "r"(x), "r"(mask), "r"(base));
  return out;
}

/// What E2M1 pairs, value * 2^-126 (bf16) or value * 2^-14 (fp16), are multiplied with: the factors of scale bytes i and i ^ 2 of the
/// thread in the halves of a register, that of the lower byte in the low half. Two instructions give two factors, and a multiplication
/// picks a half.
///   E8M0  bf16: byte b in the exponent field is 2^(b - 127) = 2^126 * 2^(b - 253).
///   E4M3  byte = (E + 11) << 3 | M means 2^(E - 9) (1 + M / 8) = s. bf16: the byte at bits 11 to 4 under 0x7000 has the exponent field
///         E + 11 + 224, that is s * 2^117, and the product is value * s * 2^-9. fp16: the byte at bits 14 to 7 has the exponent field E +
///         11, that is s * 2^5, and the product is value * s * 2^-9 again; E <= 17, so that the factor is at most 2^13 * 1.75, and the
///         products, multiples of 2^-19 below 5.5 with 6 bits, are exact in fp16.
__device__ __forceinline__ uint32_t TwoFactors(const RowScales& scales, int i) {
  const uint32_t word = scales.scales[i / 4];
  if constexpr (kLayout.scale == TileScale::kE4M3 && !kHalf) {
    return MaskOr(i % 2 == 0 ? ShiftLeft<4>(word) : word >> 4, 0x0ff00ff0u, (kE5M3Offset << 7) * 0x10001u);
  } else {
    return (i % 2 == 0 ? ShiftLeft<7>(word) : word >> 1) & 0x7f807f80u;
  }
}

/// An E2M1 pair times the scale of the half and group; times the power of two alone where there is none or the accumulator takes it.
__device__ __forceinline__ uint32_t ScaleE2M1(uint32_t pair, const RowScales& scales, int half, int group) {
  if constexpr (kScaleOnAccumulator || kLayout.scale == TileScale::kNone) {
    return MultiplyPairs(pair, kHalf ? 0x74007400u : 0x7e807e80u);  // 2^14, 2^126
  } else {
    const int i = half * kLayout.groups() + group;
    return i % 4 < 2 ? MultiplyByLow(pair, TwoFactors(scales, i)) : MultiplyByHigh(pair, TwoFactors(scales, i));
  }
}

/// E8M0 code c of wide_scales: 2^(c - 127), subnormal for c = 0. Applied after 2^126, because c spans more than one exponent field can add.
__device__ __forceinline__ uint32_t WideFactor(const RowScales& scales, int half, int group) {
  const uint32_t bits = BroadcastByte(scales.scales, half * kLayout.groups() + group) << 7;
  return bits == 0 ? 0x00400040u : bits;
}

/// bf16: bits 0 to 7 alone are their integer * 2^-133: the subnormals and the first binade lie equally dense. So nibbles need not be
/// shifted one by one, and a multiplication by a power of two and an addition, both exact, leave (q - z) * 2^-6; 2^127 is the largest
/// factor there is. fp16: 0x6400 | q is 1024 + q, and there is room for a nibble at bits 4 to 7, 1024 + 16 q, of which a sixteenth less 64
/// + z is q - z.
__device__ __forceinline__ void DecodeInt4(uint32_t word, const RowScales& scales, int group, uint32_t a[4]) {
  constexpr uint32_t kBase = 0x64006400u;
  const uint32_t high = word >> 8;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint32_t from = j < 2 ? word : high, mask = j % 2 == 0 ? 0x000f000fu : 0x00f000f0u;
    if constexpr (kHalf) {
      uint32_t zero = 0x00080008u;
      if constexpr (kLayout.zeros) zero = BroadcastByte(scales.zeros, (j % 2) * kLayout.groups() + group);
      const uint32_t biased = MaskOr(from, mask, kBase);
      a[j] = j % 2 == 0 ? SubtractPairs(biased, kBase + zero) : MultiplyAddPairs(biased, 0x2c002c00u, 0xd400d400u + zero * 16);
    } else {
      uint32_t minus_zero = 0xbe00be00u;  // -8 * 2^-6
      if constexpr (kLayout.zeros) {
        minus_zero = MultiplyPairs(BroadcastByte(scales.zeros, (j % 2) * kLayout.groups() + group), 0xff00ff00u);  // -2^127
      }
      a[j] = MultiplyAddPairs(from & mask, j % 2 == 0 ? 0x7f007f00u : 0x7d007d00u, minus_zero);  // 2^127, 2^123
      if constexpr (!kScaleOnAccumulator) a[j] = MultiplyPairs(a[j], 0x42804280u);               // 2^6
    }
  }
}

__device__ __forceinline__ void DecodeE2M1(uint32_t word, const RowScales& scales, int group, uint32_t a[4]) {
  const uint32_t turned = __funnelshift_r(word, word, 4);
  if constexpr (kHalf) {
    // Sign to 15, e1 e0 m to 11 10 9: exponent field 0..3 and the upper mantissa bit, value * 2^-14 with 0.5 a subnormal.
    a[0] = (ShiftLeft<2>(word) & 0x80008000u) | (ShiftLeft<5>(word) & 0x0e000e00u);
    a[1] = (ShiftLeft<6>(word) & 0x80008000u) | (ShiftLeft<9>(word) & 0x0e000e00u);
    a[2] = (turned & 0x80008000u) | ((word >> 1) & 0x0e000e00u);
    a[3] = (word & 0x80008000u) | (ShiftLeft<3>(word) & 0x0c000c00u) | ((word >> 5) & 0x02000200u);
  } else {
    // Sign to 15, e1 e0 m to 8 7 6: value * 2^-126 with 0.5 a subnormal.
    a[0] = ShiftLeft<2>(word) & 0x81c081c0u;
    a[1] = ShiftLeft<6>(word) & 0x81c081c0u;
    a[2] = turned & 0x81c081c0u;
    a[3] = MaskOr(word >> 8, 0x00400040u, word & 0x81808180u);
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if constexpr (kLayout.wide_scales) {
      a[j] = MultiplyPairs(MultiplyPairs(a[j], 0x7e807e80u), WideFactor(scales, j % 2, group));
    } else {
      a[j] = ScaleE2M1(a[j], scales, j % 2, group);
    }
  }
}

/// s eeee mmm -> sign at 15 and eeee mmm below the exponent's top: value * 2^-120 (bf16) or * 2^-8 (fp16), subnormals included, since
/// the fields mean the same there. The power of two puts it right. Even registers lie in the upper bytes of the halves, odd ones in the
/// lower, so that shifts alone bring the fields into place.
__device__ __forceinline__ void DecodeE4M3(const uint32_t words[2], uint32_t a[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint32_t word = words[j / 2];
    const uint32_t signs = (j % 2 == 0 ? word : ShiftLeft<8>(word)) & 0x80008000u;
    if constexpr (kHalf) {
      a[j] = MultiplyPairs(signs | ((j % 2 == 0 ? word >> 1 : ShiftLeft<7>(word)) & 0x3f803f80u), 0x5c005c00u);  // 2^8
    } else {
      a[j] = MultiplyPairs(signs | ((j % 2 == 0 ? word >> 4 : ShiftLeft<4>(word)) & 0x07f007f0u), 0x7b807b80u);  // 2^120
    }
  }
}

}  // namespace weight_detail

#ifndef BF_SHIFTS
/// Brings the constants of decoding nearer: asked for by the first codes, they would be waited for once more.
__device__ __forceinline__ void WarmDecode() {
  if (weight_detail::powers_of_two[0] == 0) asm volatile("trap;");
}
#endif

/// `unit` in shared or global memory, 16-byte aligned.
__device__ __forceinline__ RowScales LoadRowScales(const uint8_t* unit, int w, int q) {
  RowScales out{};
  if constexpr (RowScales::kScaleBytes > 0) {
    weight_detail::LoadBytes<RowScales::kScaleBytes>(unit + kLayout.code_bytes() + (w * 8 + q) * RowScales::kScaleBytes, out.scales);
  }
  if constexpr (RowScales::kZeroBytes > 0) {
    const uint8_t* zeros = unit + kLayout.code_bytes() + kLayout.scale_bytes();
    weight_detail::LoadBytes<RowScales::kZeroBytes>(zeros + (w * 8 + q) * RowScales::kZeroBytes, out.zeros);
  }
  return out;
}

/// The words of thread t = 0..127 in a block at `block`: one, two or four 16-byte loads; words[kBlockWords].
__device__ __forceinline__ void LoadBlockWords(const uint8_t* block, int t, uint32_t* words) {
#pragma unroll
  for (int i = 0; i < kBlockWords / 4; ++i) {
    weight_detail::LoadBytes<16>(block + (i * kTileThreads + t) * 16, words + 4 * i);
  }
}

/// The A registers of one k16 step. `words`: the thread's kBlockWords of block `block` of the unit. block and plane are constants of an
/// unrolled loop.
__device__ __forceinline__ void DecodePlane(const uint32_t* words, const RowScales& scales, int block, int plane, uint32_t a[4]) {
  const int group = weight_detail::GroupOf(block, plane);
  if constexpr (kLayout.codes == TileCodes::kInt4) {
    weight_detail::DecodeInt4(words[plane], scales, group, a);
  } else if constexpr (kLayout.codes == TileCodes::kE2M1) {
    weight_detail::DecodeE2M1(words[plane], scales, group, a);
  } else if constexpr (kLayout.codes == TileCodes::kE4M3) {
    weight_detail::DecodeE4M3(words + 2 * plane, a);
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) a[j] = words[4 * plane + j];
  }
}

/// The factor of the group's partial sums of row 16 w + q + 8 half; 1 unless kScaleOnAccumulator.
__device__ __forceinline__ float AccumulatorScale(const RowScales& scales, int half, int group) {
  const int i = half * kLayout.groups() + group;
  constexpr float kUndone = kScaleOnAccumulator && kLayout.codes == TileCodes::kInt4 && !kHalf ? 64.0f : 1.0f;  // DecodeInt4's 2^-6
  if constexpr (kLayout.scale == TileScale::kF32) {
    return AsFloat(scales.scales[i]) * kUndone;
  } else if constexpr (kLayout.scale == TileScale::kBF16) {
    const uint32_t pair = scales.scales[i / 2];
    return AsFloat(i % 2 == 0 ? pair << 16 : pair & 0xffff0000u) * kUndone;
  } else if constexpr (kLayout.scale == TileScale::kF16) {
    return FloatFromF16(i % 2 == 0 ? scales.scales[i / 2] & 0xffffu : scales.scales[i / 2] >> 16) * kUndone;
  } else {
    return 1.0f;
  }
}

}  // namespace billfish::cuda
