// Rows of a weight in plain form but packed order: what src/cuda/kernels/pack_tiles.cu makes tiles of.
#pragma once

#include <cstddef>
#include <cstdint>

#include "billfish/weight.h"
#include "cuda/pack_args.h"
#include "cuda/tile_form.h"

namespace billfish::cuda {

/// A buffer of `rows` rows, a multiple of 64: their codes, then scales, zero points and bases, each part aligned to 256 bytes.
class PlainRows {
 public:
  /// Borrows the weight; `form` is FormOf(weight, ...).
  PlainRows(const PackedWeight& weight, const TileForm& form, int64_t rows);

  /// Bytes of the buffer.
  size_t bytes() const { return bytes_; }
  /// Bytes that a row takes, for choosing how many.
  static size_t BytesPerRow(const PackedWeight& weight, const TileForm& form);

  /// Copies packed row `row` of the stack of experts (expert * form.packed_rows() + packed row) to place `place` of the buffer. Returns its
  /// row scale; 1 for padding. Different places may be written by different threads.
  float Copy(int64_t row, int64_t place, std::byte* buffer) const;

  /// For a kernel that packs a buffer filled like this. `buffer` and `tiles` are addresses on the device.
  PackArgs ArgsFor(const std::byte* buffer, std::byte* tiles) const;

 private:
  const PackedWeight& weight_;
  TileForm form_;
  size_t row_bytes_ = 0, scale_bytes_ = 0, zero_bytes_ = 0;  // of a row
  size_t scales_ = 0, zeros_ = 0, bases_ = 0, bytes_ = 0;    // offsets
};

}  // namespace billfish::cuda
