// TileLayout: the one packed form that every GPU kernel reads, forward and backward. Shared with device code: freestanding.
//
// A weight [E, N, K] is cut into panels of 64 rows and each panel into units of unit_k (64 or 128) columns:
//
//   weight   [E][panels][units]  unit          one sequential stream of bytes per panel, units along K
//   unit     codes of its 64x64 blocks in order of k, then the scales of the unit, then its zero points; a multiple of 16 bytes
//   row_scale [E][panels * 64]   fp32, apart, where the layout has it
//
// A block is held in the order of the A operand of mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"); four warps' fragments
// one after the other are the A operand of wgmma.m64k16. Thread t = 32 w + l of a block owns rows 16 w + l / 4 (+ 8), and of each 16
// consecutive k ("plane" i = 0..3) the columns c = 2 (l % 4) + {0, 1, 8, 9}. Its eight values of a plane are the registers
//
//   a0 = (row, k c, c+1)   a1 = (row + 8, k c, c+1)   a2 = (row, k c+8, c+9)   a3 = (row + 8, k c+8, c+9)      low half = smaller k
//
//   4-bit   [128 threads][4 planes] u32     16 bytes a thread, one load; the word of a plane, by code book:
//           int4   nibble j = low half of a_j, nibble 4 + j = high half of a_j            (word >> 4 j) & 0x000f000f is the pair a_j
//           e2m1   each 16-bit half holds four values (s e1 e0 m); half h of a_j is in half h of the word at bits
//                    a0  s 13  e m 6 5 4      (word << 2) & 0x81c081c0
//                    a1  s  9  e m 2 1 0      (word << 6) & 0x81c081c0
//                    a2  s  3 of the other half, e m 12 11 10      (word rotated right by 4) & 0x81c081c0
//                    a3  s 15  e 8 7  m 14    word & 0x81808180 | (word >> 8) & 0x00400040
//                  so that a masked pair is bf16 value * 2^-126
//   8-bit   [2 plane pairs][128 threads][2 planes] 8 bytes: a1 lo, a0 lo, a1 hi, a0 hi, a3 lo, a2 lo, a3 hi, a2 hi
//   16-bit  [4 planes][128 threads] a0 a1 a2 a3, 16 bytes
//
// Scales of a unit follow the codes, by row r = 16 w + 8 h + q of the panel (q = 0..7), groups along k g = 0..unit_k/group-1:
//   [w 4][q 8][h 2][g]    a thread finds the scales of its two rows side by side; lanes of one q read the same bytes
//   kE8M0   one byte b: bf16 factor 2^126 * 2^(b - 253), i.e. b is its exponent field; a row is rebased so that its largest b is 253,
//           row_scale undoes it. With wide_scales the byte is the E8M0 code itself and the factor needs a second multiplication.
//   kE4M3   one byte E5M3: (E + 11) << 3 | M for 2^(E - 9) (1 + M / 8), no sign, no zero. bf16 bits byte << 4 | kE5M3Offset << 7 are the
//           scale * 2^117, fp16 bits byte << 7 are scale * 2^5. A group of scale zero has all codes zero. row_scale contains 2^9.
//   kBF16, kF16 two bytes; kF32 four bytes: FP8 blocks, one value per row and group like the others
// Zero points of a unit, int4 with ZeroPoint::kPerGroup only: the same [w][q][h][g] order, one byte each, 0..16.
//
// N is padded to 64 with rows of zero codes, K to unit_k with zero codes; a group's padding has a scale of 1.
#pragma once

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define BILLFISH_HD __host__ __device__
#else
#include <cstdint>
#define BILLFISH_HD
#endif

namespace billfish::cuda {

inline constexpr int kPanelRows = 64;
inline constexpr int kBlockK = 64;
inline constexpr int kPlanes = 4;         // k16 steps of a block
inline constexpr int kTileThreads = 128;  // threads that own a block
inline constexpr int kMostStepUnits = 4;  // units that a kernel may take at a time; behind the last of a weight there are as many, less one
/// E5M3 holds the exponent E of 2^(E - 9) as E + 11: the exponent field of scale * 2^5 in fp16, and what scale * 2^117 has above 224 in
/// bf16, whose lower five bits are free.
inline constexpr int kE5M3Bias = 11;
inline constexpr int kE5M3Offset = 127 + 108 - kE5M3Bias;
/// log2 of what row_scale undoes for E4M3 scales.
inline constexpr int kE4M3Rebase = 9;

enum class TileCodes : int { kInt4 = 0, kE2M1 = 1, kE4M3 = 2, kBF16 = 3, kF16 = 4 };
enum class TileScale : int { kNone = 0, kE8M0 = 1, kE4M3 = 2, kBF16 = 3, kF16 = 4, kF32 = 5 };

struct TileLayout {
  TileCodes codes = TileCodes::kInt4;
  TileScale scale = TileScale::kNone;
  int group = 0;             ///< columns that share a scale inside a unit: 16, 32, 64 or 128; 0 without scales
  bool zeros = false;        ///< a zero point per group
  bool wide_scales = false;  ///< kE8M0 only

  BILLFISH_HD constexpr int code_bits() const {
    return codes == TileCodes::kInt4 || codes == TileCodes::kE2M1 ? 4 : codes == TileCodes::kE4M3 ? 8 : 16;
  }
  BILLFISH_HD constexpr int unit_k() const { return group == 128 ? 128 : 64; }
  BILLFISH_HD constexpr int block_bytes() const { return kPanelRows * kBlockK * code_bits() / 8; }
  BILLFISH_HD constexpr int code_bytes() const { return unit_k() / kBlockK * block_bytes(); }
  BILLFISH_HD constexpr int groups() const { return group == 0 ? 0 : unit_k() / group; }
  BILLFISH_HD constexpr int scale_size() const {
    return scale == TileScale::kNone                                ? 0
           : scale == TileScale::kE8M0 || scale == TileScale::kE4M3 ? 1
           : scale == TileScale::kBF16 || scale == TileScale::kF16  ? 2
                                                                    : 4;
  }
  BILLFISH_HD constexpr int scale_bytes() const { return kPanelRows * groups() * scale_size(); }
  BILLFISH_HD constexpr int zero_bytes() const { return zeros ? kPanelRows * groups() : 0; }
  BILLFISH_HD constexpr int unit_bytes() const { return code_bytes() + scale_bytes() + zero_bytes(); }
  /// Index of row r of a panel, group g in the scales (and zero points) of a unit.
  BILLFISH_HD constexpr int scale_index(int r, int g) const {
    const int w = r / 16, h = r / 8 % 2, q = r % 8;
    return ((w * 8 + q) * 2 + h) * groups() + g;
  }
};

BILLFISH_HD constexpr bool operator==(const TileLayout& a, const TileLayout& b) {
  return a.codes == b.codes && a.scale == b.scale && a.group == b.group && a.zeros == b.zeros && a.wide_scales == b.wide_scales;
}
BILLFISH_HD constexpr bool operator!=(const TileLayout& a, const TileLayout& b) { return !(a == b); }

BILLFISH_HD constexpr int64_t TilePanels(int64_t N) { return (N + kPanelRows - 1) / kPanelRows; }
BILLFISH_HD constexpr int64_t TileUnits(const TileLayout& layout, int64_t K) { return (K + layout.unit_k() - 1) / layout.unit_k(); }

}  // namespace billfish::cuda
