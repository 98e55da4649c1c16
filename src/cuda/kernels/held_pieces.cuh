// Pieces of a packed weight, 16 rows of a unit, that lie in shared memory until they are multiplied: asked for, decoded, multiplied with
// one row. For kernels whose weights all have a place of their own there.
#pragma once

#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/weight.cuh"

namespace billfish::cuda {

// A piece is 16 rows of a unit: [slab][lane] 16 bytes of codes, then the scales and the zero points of the rows.
inline constexpr int kSlabs = kLayout.code_bytes() / (kTileThreads * 16);
inline constexpr int kScaleChunks = 8 * RowScales::kScaleBytes / 16, kZeroChunks = 8 * RowScales::kZeroBytes / 16,
                     kChunks = kScaleChunks + kZeroChunks;
inline constexpr int kCodeBytes = kSlabs * 512, kPieceBytes = kCodeBytes + kChunks * 16;
inline constexpr int kRowBytes = kUnitK * 2;  // of x or h in a unit

/// Where the codes of a block of 16 rows begin in a unit, in 16-byte chunks from the first unit of the first panel on; `units`: of a panel.
/// 32 bits hold it where 64 GB hold the weights.
inline constexpr int kUnitChunks = kLayout.unit_bytes() / 16, kBlockChunks = 32;
__device__ __forceinline__ uint32_t ChunkOf(int units, int block, int unit) {
  return (block / 4 * units + unit) * kUnitChunks + block % 4 * kBlockChunks;
}

/// Ask for `units` pieces in a row, to lie in a row: for their scales and zero points by one lane, for their codes by all lanes. `from`:
/// the codes of the first, of the lane.
__device__ __forceinline__ void CopyScales(const uint8_t* from, int block, int units, uint32_t to, uint64_t policy) {
  const uint8_t* scales = from + kLayout.code_bytes() + block * (kScaleChunks - kBlockChunks) * 16;
  const uint8_t* zeros = from + kLayout.code_bytes() + kLayout.scale_bytes() + block * (kZeroChunks - kBlockChunks) * 16;
  to += kCodeBytes;
#pragma unroll 1
  for (; units > 0; --units, scales += kLayout.unit_bytes(), zeros += kLayout.unit_bytes(), to += kPieceBytes) {
#pragma unroll
    for (int i = 0; i < kScaleChunks; ++i) CopyAsync16(to + i * 16, scales + i * 16, policy);
#pragma unroll
    for (int i = 0; i < kZeroChunks; ++i) CopyAsync16(to + (kScaleChunks + i) * 16, zeros + i * 16, policy);
  }
}
__device__ __forceinline__ void CopyCodes(const uint8_t* from, uint32_t to, uint64_t policy) {
#pragma unroll
  for (int slab = 0; slab < kSlabs; ++slab) CopyAsync16(to + slab * 512, from + slab * kTileThreads * 16, policy);
}
__device__ __forceinline__ void CopyCodes(const uint8_t* from, int units, uint32_t to, uint64_t policy) {
  if (units > 0) CopyCodes(from, to, policy);
  if (units > 1) CopyCodes(from + kLayout.unit_bytes(), to + kPieceBytes, policy);
#pragma unroll 1
  for (int u = 2; u < units; ++u) CopyCodes(from + u * kLayout.unit_bytes(), to + u * kPieceBytes, policy);
}

/// Addresses of a piece, as a lane reads it.
struct PieceLane {
  uint32_t codes, scales, zeros;
  __device__ __forceinline__ PieceLane(uint32_t piece, int lane)
      : codes(piece + lane * 16),
        scales(piece + kCodeBytes + lane / 4 * RowScales::kScaleBytes),
        zeros(piece + kCodeBytes + kScaleChunks * 16 + lane / 4 * RowScales::kZeroBytes) {}
  __device__ __forceinline__ void Skip(uint32_t bytes) { codes += bytes, scales += bytes, zeros += bytes; }
};

inline constexpr int kTiles = kUnitBlocks * kPlanes;  // tensor-core steps of a unit
struct CodedUnit {
  uint32_t words[kUnitBlocks * kBlockWords];
  RowScales scales;
  // The piece u of those in a row.
  __device__ __forceinline__ void Load(const PieceLane& from, int u) {
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) LoadShared<16>(from.codes + u * kPieceBytes + slab * 512, words + 4 * slab);
    if constexpr (kScaleChunks > 0) LoadShared<RowScales::kScaleBytes>(from.scales + u * kPieceBytes, scales.scales);
    if constexpr (kZeroChunks > 0) LoadShared<RowScales::kZeroBytes>(from.zeros + u * kPieceBytes, scales.zeros);
  }
  __device__ __forceinline__ void Decode(int i, uint32_t (&a)[4]) const {
    DecodePlane(words + i / kPlanes * kBlockWords, scales, i / kPlanes, i % kPlanes, a);
  }
};
struct DecodedUnit {
  uint32_t a[kTiles][4];
  RowScales scales;
  // The assembler puts arithmetic off until somebody needs what comes of it, such as a store to `room`, 16 bytes, that happens never, which
  // it cannot know.
  __device__ __forceinline__ void Decode(const PieceLane& from, bool never, uint32_t room) {
    CodedUnit unit;
    unit.Load(from, 0);
    scales = unit.scales;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      unit.Decode(i, a[i]);
      asm volatile("{ .reg .pred p; setp.ne.b32 p, %0, 0; @p st.shared.v4.u32 [%1], {%2,%3,%4,%5}; }" ::"r"(static_cast<int>(never)),
                   "r"(room), "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3])
                   : "memory");
    }
  }
};

/// The product of pieces with a row of x or h in shared memory, whose address is that which the lane names to LoadMatrices: everything that
/// a step reads is asked for first, and its planes go to two sums in turn.
class RowSums {
 public:
  __device__ __forceinline__ void Add(PieceLane from, uint32_t x, int units) {
#pragma unroll 1
    for (; units >= kStep; units -= kStep) {
      Step<kStep>(from, x);
      from.Skip(kStep * kPieceBytes);
      x += kStep * kRowBytes;
    }
    if (kStep > 1 && units > 0) Step<1>(from, x);
  }
  /// A unit that was decoded before its row was there.
  __device__ __forceinline__ void Add(const DecodedUnit& unit, uint32_t x) {
    uint32_t b[kTiles / 2][4];
    LoadRow(x, b);
    float part[2][4] = {};
#pragma unroll
    for (int i = 0; i < kTiles; ++i) AddTile(i, unit.a[i], b[i / 2] + i % 2 * 2, unit.scales, part);
  }
  /// Of rows q (half 0) and q + 8.
  __device__ __forceinline__ float Of(int half) const { return even_[2 * half] + odd_[2 * half]; }

 private:
  static constexpr int kStep = kUnitBlocks == 1 ? 2 : 1;  // units
  template <int kUnits>
  __device__ __forceinline__ void Step(const PieceLane& from, uint32_t x) {
    CodedUnit unit[kUnits];
    uint32_t b[kUnits][kTiles / 2][4];
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      unit[u].Load(from, u);
      LoadRow(x + u * kRowBytes, b[u]);
    }
    __syncwarp();  // or the assembler would move them to where they are needed
    float part[2][4] = {};
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        uint32_t a[4];
        unit[u].Decode(i, a);
        AddTile(i, a, b[u][i / 2] + i % 2 * 2, unit[u].scales, part);
      }
    }
  }
  static __device__ __forceinline__ void LoadRow(uint32_t x, uint32_t (&b)[kTiles / 2][4]) {
#pragma unroll
    for (int i = 0; i < kTiles / 2; ++i) LoadMatrices(x + i * 64, b[i]);
  }
  // Tile i of a unit; `part`: of the group, where scales are applied to sums.
  __device__ __forceinline__ void AddTile(int i, const uint32_t (&a)[4], const uint32_t* b, const RowScales& scales, float (&part)[2][4]) {
    constexpr int kGroup = kLayout.group == 0 ? kUnitK : kLayout.group;
    float(&sum)[4] = kScaleOnAccumulator ? part[i % 2] : i % 2 == 0 ? even_ : odd_;
    Mma(sum, a, b);
    if constexpr (kScaleOnAccumulator) {
      const int k = i * 16 + 16;
      if (k % kGroup != 0) return;
      const int group = k / kGroup - 1;
      even_[0] = fmaf(AccumulatorScale(scales, 0, group), part[0][0] + part[1][0], even_[0]);
      even_[2] = fmaf(AccumulatorScale(scales, 1, group), part[0][2] + part[1][2], even_[2]);
#pragma unroll
      for (int j = 0; j < 4; ++j) part[0][j] = part[1][j] = 0;
    }
  }
  float even_[4] = {}, odd_[4] = {};
};

}  // namespace billfish::cuda
