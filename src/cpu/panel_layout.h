// PanelLayout: where the bits of a weight lie once it is packed for the CPU kernels. One form serves every instruction set.
//
//   expert = panels of 32 output rows (the last one padded)     one panel is one sequential stream of bytes
//   panel  = slabs of up to 256 k (whole chunks)
//   slab   = scales [chunks, 32] | zeros [chunks, 32] | codes [units, 2, 64 bytes]        each part padded to 64 bytes
//   chunk  = the k that share a scale, padded to a multiple of 8 (32 above 16); a group longer than 256 is cut into equal chunks,
//            and a weight with one scale per row has chunks of 32 without scales (the scale joins the row factor)
//   unit   = 64 bytes for each half (16 rows) of the panel: 32-bit lane i belongs to row i unless drawn otherwise
//
//   4-bit lane   bit 0    4    8    12   16   20   24   28          two 16-bit words: even k in the low word, odd k in the high
//                k   0    2    4    6    1    3    5    7           one, so a 16-bit shift by 4j leaves the pair (2j, 2j+1)
//   8-bit unit   16 bytes per 4 rows: rows' pairs (k 0, k 1), then their pairs (k 2, k 3); unpacking bytes to words of the low (high)
//                8 bytes of each 128-bit lane leaves the pair (0, 1) (the pair (2, 3)) in the 32-bit lane of its row
//   bf16 lane    low half = k 0, high half = k 1                    the operand of vdpbf16ps as it is
//   fp16 unit    16 rows of k 0, then 16 rows of k 1 (2 x 32 bytes) so that vcvtph2ps reads 32 bytes straight
//   fp32 lane    k 0
//
// E8M0 scales are stored relative to the largest scale of their row: byte d = max - s means 2^-d, and 2^(max - 127) joins the row
// factor. Kernels can then apply them as an unsigned saturating subtraction from the exponent field of a bf16 or fp32 number: zero
// stays zero, and no subnormal appears while d <= kMaxExponentDrop. Rows with a larger spread are packed with fp32 scales instead.
//
// E4M3 scales become E5M3 without sign, zero or subnormals: byte = (e + kE5M3Bias) << 3 | m means (1 + m/8) 2^e, e = -9 .. 8. Every
// positive E4M3 number has that form (m 2^-9 normalises), and decoding is a shift and an addition. The codes of a zero scale become
// zero; a weight with negative scales, or scales of another meaning, is packed with bf16 or fp32 scales.
//
// 8-bit codes are finite: PackedWeight refuses the NaN codes of E4M3, so kernels need not agree on them.
//
// Everything in this header is freestanding arithmetic; it allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace billfish::cpu {

inline constexpr int kPanelRows = 32;
inline constexpr int kSlabK = 256;
inline constexpr int kMaxExponentDrop = 120;
inline constexpr int kE5M3Bias = 10;
inline constexpr size_t kLine = 64;

enum class Codes : uint8_t { kInt4, kInt4Zero, kE2M1, kE4M3, kBF16, kF16, kF32 };
enum class Scales : uint8_t { kNone, kExponent, kE5M3, kBF16, kF16, kF32 };

constexpr int CodeBitsOf(Codes codes) {
  switch (codes) {
    case Codes::kInt4:
    case Codes::kInt4Zero:
    case Codes::kE2M1:
      return 4;
    case Codes::kE4M3:
      return 8;
    case Codes::kBF16:
    case Codes::kF16:
      return 16;
    case Codes::kF32:
      return 32;
  }
  return 0;
}

constexpr int ScaleBytesOf(Scales scales) {
  switch (scales) {
    case Scales::kNone:
      return 0;
    case Scales::kExponent:
    case Scales::kE5M3:
      return 1;
    case Scales::kBF16:
    case Scales::kF16:
      return 2;
    case Scales::kF32:
      return 4;
  }
  return 0;
}

struct PanelLayout {
  Codes codes = Codes::kF32;
  Scales scales = Scales::kNone;
  int64_t E = 0, N = 0, K = 0;
  int64_t group = 0;        ///< k per scale of the weight as given; K where there is one scale per row
  int32_t pieces = 1;       ///< chunks a group is cut into
  int32_t chunk_k = 0;      ///< k of a chunk, padding included
  int32_t chunks = 0;       ///< chunks along K
  int32_t slab_chunks = 0;  ///< chunks of a full slab

  int unit_k() const { return 32 / CodeBitsOf(codes); }
  int64_t panels() const { return (N + kPanelRows - 1) / kPanelRows; }
  int slabs() const { return (chunks + slab_chunks - 1) / slab_chunks; }
  int chunks_in_slab(int slab) const {
    const int left = chunks - slab * slab_chunks;
    return left < slab_chunks ? left : slab_chunks;
  }
  int64_t padded_k() const { return int64_t{chunks} * chunk_k; }

  static constexpr size_t Padded(size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }
  size_t scale_part(int count) const { return Padded(size_t(count) * kPanelRows * ScaleBytesOf(scales)); }
  size_t zero_part(int count) const { return codes == Codes::kInt4Zero ? Padded(size_t(count) * kPanelRows) : 0; }
  size_t code_part(int count) const { return size_t(count) * (chunk_k / unit_k()) * 2 * kLine; }
  size_t slab_bytes(int count) const { return scale_part(count) + zero_part(count) + code_part(count); }
  size_t panel_bytes() const {
    const int last = slabs() - 1;
    return size_t(last) * slab_bytes(slab_chunks) + slab_bytes(chunks_in_slab(last));
  }
  size_t expert_bytes() const { return size_t(panels()) * panel_bytes(); }

  /// First k of the weight that chunk c holds, and how many: the rest of the chunk is padding.
  int64_t chunk_begin(int c) const { return (c / pieces) * group + int64_t{c % pieces} * chunk_k; }
  int64_t chunk_length(int c) const {
    const int64_t begin = chunk_begin(c), group_end = (c / pieces + 1) * group;
    int64_t end = begin + chunk_k;
    end = end < group_end ? end : group_end;
    end = end < K ? end : K;
    return end > begin ? end - begin : 0;
  }
  /// k of the last chunk that hold no weights: kernels need not come to them.
  int tail_padding() const { return chunk_k - int(chunk_length(chunks - 1)); }
  /// Whether staged position p simply is k = p, padding only behind the last k.
  bool contiguous() const { return group >= K || group == int64_t{pieces} * chunk_k; }
  size_t steps() const { return size_t(chunk_k) / 8; }
};

/// Fills the fields that follow from codes, scales, E, N, K and the group (k per scale; 0 or >= K: one scale per row).
constexpr PanelLayout MakePanelLayout(Codes codes, Scales scales, int64_t E, int64_t N, int64_t K, int64_t group) {
  PanelLayout l;
  l.codes = codes;
  l.scales = scales;
  l.E = E;
  l.N = N;
  l.K = K;
  const bool whole_row = group <= 0 || group >= K;
  if (whole_row && codes != Codes::kInt4Zero) {
    l.group = (K + 31) / 32 * 32;
    l.chunk_k = 32;
  } else {
    l.group = whole_row ? (K + 31) / 32 * 32 : group;
    if (l.group <= kSlabK) {
      const int64_t unit = l.group > 16 ? 32 : 8;
      l.chunk_k = int32_t((l.group + unit - 1) / unit * unit);
    } else if (l.group % 32 == 0) {
      l.chunk_k = kSlabK;
      while (l.group % l.chunk_k != 0) l.chunk_k -= 32;
    } else {
      const int64_t pieces = (l.group + kSlabK - 1) / kSlabK;
      l.chunk_k = int32_t(((l.group + pieces - 1) / pieces + 31) / 32 * 32);
    }
  }
  l.pieces = int32_t((l.group + l.chunk_k - 1) / l.chunk_k);
  const int64_t groups = (K + l.group - 1) / l.group;
  l.chunks = int32_t(groups * l.pieces);
  l.slab_chunks = kSlabK / l.chunk_k;
  return l;
}

}  // namespace billfish::cpu
