// PackedWeight: one quantised matrix [N,K] or a stack of experts [E,N,K] in billfish's plain form.
//
// Plain form (every array row-major, no padding between experts or rows):
//   codes      [E, N, row_bytes]  4-bit: byte j of a row holds k = 2j in the low nibble and k = 2j+1 in the high one,
//                                 row_bytes = ceil(K/2), the last high nibble of an odd K is zero; 8, 16, 32-bit: K little-endian codes
//   scales     [E, R, G]          G = ceil(K / group) (1 if group = 0), R = ceil(N / group_rows) (1 if group_rows = 0), dtype scheme.scale
//   zeros      [E, R, G]          u8 0..16, only for ZeroPoint::kPerGroup
//   row_scale  [E, N]             fp32, only if scheme.row_scale
//   perm       [E, K]             int32, optional: expert e multiplies x'[j] = x[perm[e,j]].
//                                 This is how act-order (GPTQ g_idx) is held: columns are stored sorted by group.
//
// The numbers are exactly those of the file the weight came from; see scheme.h for the formula.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "billfish/scheme.h"
#include "billfish/status.h"
#include "billfish/tensor.h"

namespace billfish {

/// Immutable shared bytes. May own a heap block or keep a memory-mapped file alive; copying shares.
class Bytes {
 public:
  Bytes() = default;
  Bytes(std::shared_ptr<const void> owner, std::span<const std::byte> view) : owner_(std::move(owner)), view_(view) {}
  /// Takes the vector over.
  static Bytes Own(std::vector<std::byte> bytes);
  template <class T>
  static Bytes Own(std::vector<T> values) {
    auto owner = std::make_shared<const std::vector<T>>(std::move(values));
    return {owner, std::as_bytes(std::span<const T>(*owner))};
  }

  const std::byte* data() const { return view_.data(); }
  size_t size() const { return view_.size(); }
  bool empty() const { return view_.empty(); }
  std::span<const std::byte> view() const { return view_; }
  /// Bytes [offset, offset + count) that share this owner. Precondition: inside the view.
  Bytes Slice(size_t offset, size_t count) const { return {owner_, view_.subspan(offset, count)}; }
  /// Unaligned-safe access is the caller's duty: files do not promise alignment.
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(view_.data());
  }

 private:
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> view_;
};

/// The arrays of the plain form, as drawn above. Arrays that the scheme does not have stay empty.
struct WeightParts {
  Bytes codes;
  Bytes scales;
  Bytes zeros;
  std::vector<float> row_scale;
  std::vector<int32_t> perm;
};

class PackedWeight {
 public:
  PackedWeight() = default;

  /// Checks every size against the scheme and takes the parts over.
  /// Errors: kInvalidArgument (E, N, K < 1, a scheme that means nothing), kShapeMismatch (an array of the wrong size, perm not a
  /// permutation), kCorruptFile (a NaN scale: E8M0 byte 255 or E4M3 0x7F/0xFF, or a zero point above 16; names the first place).
  static Result<PackedWeight> FromParts(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, WeightParts parts);

  /// Quantises w, [N,K] or [E,N,K], f32, f16 or bf16, contiguous. Deterministic. NaN or infinite weights are kInvalidArgument.
  /// threads = 0 uses DefaultThreads(); the result does not depend on it.
  static Result<PackedWeight> Quantize(ConstTensorView w, const QuantScheme& scheme, int threads = 0);

  /// Random codes under scales such that w has a mean of 0 and a root mean square of about K^-1/2: a product with x of mean square 1 has
  /// one too. For timing and for models without a checkpoint, at several GB/s. Depends on the arguments alone, not on `threads` (0 uses
  /// DefaultThreads()). Errors: those of FromParts.
  static Result<PackedWeight> Random(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, uint64_t seed, int threads = 0);

  /// out[e,n,k] = w[e,n,k] in the ORIGINAL k order (perm undone); out is f32 or bf16, contiguous [N,K] (E = 1) or [E,N,K].
  /// f32 is exact up to the one or two fp32 products of the formula; bf16 rounds once from f32.
  Status Dequantize(TensorView out) const;

  /// The same weight with row i of every expert being the old row order[i]; order is a permutation or a subset of 0..N-1.
  /// Copies; group_rows becomes 1. Used to separate interleaved gate and up rows.
  Result<PackedWeight> SelectRows(std::span<const int64_t> order) const;
  /// Expert e as an [N,K] weight, shares the bytes.
  Result<PackedWeight> Expert(int64_t e) const;
  /// [N0,K], [N1,K], ... -> [N0+N1+...,K] (each E = 1, same perm); and E weights [N,K] -> [E,N,K]. Same code book, group and K
  /// required. Copies. Numbers are unchanged: missing row scales become 1, scales shared by several rows are repeated per row
  /// (group_rows becomes 1) where the blocks of the parts would not line up, a missing zero point becomes 8.
  static Result<PackedWeight> ConcatRows(std::span<const PackedWeight> weights);
  static Result<PackedWeight> StackExperts(std::span<const PackedWeight> weights);

  const QuantScheme& scheme() const { return scheme_; }
  int64_t E() const { return E_; }
  int64_t N() const { return N_; }
  int64_t K() const { return K_; }
  int64_t groups() const;      ///< G of the drawing
  int64_t scale_rows() const;  ///< R of the drawing
  int64_t row_bytes() const;
  size_t bytes() const;  ///< all arrays together
  const WeightParts& parts() const { return parts_; }

 private:
  QuantScheme scheme_;
  int64_t E_ = 0, N_ = 0, K_ = 0;
  WeightParts parts_;
};

}  // namespace billfish
