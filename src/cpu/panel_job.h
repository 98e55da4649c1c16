// What a panel kernel is asked to do: the whole contract between the portable driver and the code of one instruction set.
//
//   y[t, n] = row_factor[n] * sum_k code_value[n, k] * scale[n, chunk(k)] * x[t, k] + bias[n]      n in one panel, t in [0, rows)
//
// Staged activations: slab s of all rows lies at x + s * slab_stride, row t at t * kRowBytes behind it, zero where the chunks are
// padded. The order of summation over k depends on `rows` alone, and rows are cut into jobs without regard to threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/panel_layout.h"

namespace billfish::cpu {

/// How activations are held while multiplying. Row bytes avoid multiples of 4096, which would fight for the same cache sets.
enum class Staged : uint8_t { kF32, kBF16, kInt8 };

inline constexpr size_t kStagedF32Bytes = (kSlabK + 16) * 4;
inline constexpr size_t kStagedBF16Bytes = (kSlabK + 16) * 2;
/// 256 int8, then 8 fp32 scales (one per 32 k), then 16 int32 start values (kernels/avx512bf16/staged_int8.h).
inline constexpr size_t kStagedInt8Bytes = kSlabK + 8 * 4 + 16 * 4;

constexpr size_t StagedRowBytes(Staged staged) {
  return staged == Staged::kF32 ? kStagedF32Bytes : staged == Staged::kBF16 ? kStagedBF16Bytes : kStagedInt8Bytes;
}

/// Rows of activations one call may cover; callers cut longer lists.
inline constexpr int kMaxPanelRows = 128;

/// Per-thread scratch of the kernels that keep an expanded slab: [256 k, 32 rows] fp32 or less, then fp32 sums [kMaxPanelRows, 32].
inline constexpr size_t kExpandedBytes = size_t{kSlabK} * kPanelRows * 4;
inline constexpr size_t kPanelScratchBytes = kExpandedBytes + size_t{kMaxPanelRows} * kPanelRows * 4;

struct PanelJob {
  const PanelLayout* layout;
  const std::byte* panel;
  const float* row_factor;  ///< [32] or null for 1
  const float* bias;        ///< [cols] or null for 0
  const std::byte* x;
  size_t slab_stride;
  int rows;  ///< 1 .. kMaxPanelRows
  int cols;  ///< rows of the weight in this panel, 1 .. 32
  void* y;   ///< [rows, cols] with y_stride elements between rows
  int64_t y_stride;
  bool y_bf16;         ///< else fp32
  bool y_streams;      ///< y is larger than the caches: kernels may write its whole lines past them
  std::byte* scratch;  ///< kPanelScratchBytes, 64-byte aligned
};

struct StageJob {
  const PanelLayout* layout;
  const void* x;  ///< [*, K], x_stride elements between rows
  int64_t x_stride;
  bool x_bf16;             ///< else fp32
  const int32_t* source;   ///< row r of the staged form is x row source[r]; null = r
  const int32_t* columns;  ///< [padded_k] source column or -1 for padding; null = identity with zero padding at the end
  std::byte* staged;
  size_t slab_stride;
  int64_t begin, end;  ///< rows to stage
};

using PanelFunction = void (*)(const PanelJob&);
using StageFunction = void (*)(const StageJob&);

}  // namespace billfish::cpu
