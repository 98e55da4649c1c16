// The copies of a tile kernel: one stage of shared memory is a step of K, kStageUnits units.
//
//   x       64 columns at a time, [token][128 bytes], 16-byte chunk c of a row at c ^ (token % 8): eight rows of one chunk lie in all 32
//   banks
//           (ldmatrix), and it is the 128-byte swizzle of wgmma. Rows and columns that do not exist are copies or zeros.
//   weight  the units of each of the tile's panels as they lie in memory
#pragma once

#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/tile_shape.cuh"

namespace billfish::cuda {

/// kKeepOffsets: where a thread's weight chunks come from stays in registers; else it is computed again for each copy.
template <bool kKeepOffsets>
class TileCopy {
  static constexpr int kPanelChunks = kStageUnits * kUnitBytes / 16, kWeightChunks = kTilePanels * kPanelChunks;
  static constexpr int kWeightParts = (kWeightChunks + kThreads - 1) / kThreads;
  static constexpr int kRowParts = (kTokens * 8 + kThreads - 1) / kThreads;  // 16-byte chunks of a thread in 64 columns of the tile's rows
  static constexpr int kParts = kWeightParts + kBlocks * kRowParts;

 public:
  __device__ TileCopy(const LinearTileArgs& args, uint8_t* shared, int32_t* rows) : a_(args), shared_(shared), row_of_(rows) {}

  /// The row of x behind each token of the tile. Tokens beyond the last row repeat it: their sums are not stored.
  __device__ void FindRows(const Tile& tile) {
    for (int t = threadIdx.x; t < kTokens; t += kThreads) {
      const int row = tile.first_row + min(t, tile.rows - 1);
      row_of_[t] = BF_GROUPED && a_.source != nullptr ? a_.source[row] : row;
    }
    __syncthreads();
  }

  /// Where this thread's copies come from: chunk threadIdx.x % 8 of 64 columns for its rows, and its chunks of the panels' first stage.
  struct Sources {
    const uint8_t* weight;
    uint32_t weight_offset[kKeepOffsets ? kWeightParts : 1];
    int last_panel;  // of the weight, counted from the tile's first
    const char* row[kRowParts];
  };

  __device__ __forceinline__ Sources FindSources(const Tile& tile) const {
    Sources from;
    const int first_panel = tile.out / kPanelRows;
    const int64_t panel_bytes = static_cast<int64_t>(a_.units) * kUnitBytes;
    from.weight = a_.weight + tile.expert * a_.expert_bytes + first_panel * panel_bytes;
    from.last_panel = a_.panels - 1 - first_panel;
    if constexpr (kKeepOffsets) {
#pragma unroll
      for (int i = 0; i < kWeightParts; ++i) from.weight_offset[i] = WeightOffset(from, i);
    }
#pragma unroll
    for (int i = 0; i < kRowParts; ++i) {
      const int token = min(static_cast<int>(threadIdx.x / 8) + i * (kThreads / 8), kTokens - 1);
      from.row[i] = static_cast<const char*>(a_.x) + (row_of_[token] * a_.x_stride + threadIdx.x % 8 * 8) * 2;
    }
    return from;
  }

  /// Whether the step's columns of x exist and may be copied 16 bytes at a time.
  __device__ __forceinline__ bool IsPlain(int step) const { return a_.x_aligned && (step + 1) * kStageK <= a_.K; }

  /// Panels beyond the last one repeat it: their sums are not stored.
  __device__ __forceinline__ uint32_t WeightOffset(const Sources& from, int i) const {
    const int c = threadIdx.x + i * kThreads, panel = min(c / kPanelChunks, from.last_panel);
    return static_cast<uint32_t>(panel) * static_cast<uint32_t>(a_.units * kUnitBytes) + c % kPanelChunks * 16;
  }

  /// kWhole: every unit of the step exists. Others repeat the last one: their columns of x are zeros.
  template <bool kWhole>
  __device__ __forceinline__ void CopyWeightPart(const Sources& from, int step, uint32_t to, int i) const {
    const int c = threadIdx.x + i * kThreads;
    if (kWeightChunks % kThreads != 0 && c >= kWeightChunks) return;
    int unit = step * kStageUnits;
    if constexpr (!kWhole) unit -= max(unit + c % kPanelChunks * 16 / kUnitBytes - (a_.units - 1), 0);
    uint32_t offset;
    if constexpr (kKeepOffsets) {
      offset = from.weight_offset[i];
    } else {
      offset = WeightOffset(from, i);
    }
    CopyAsync16(to + kBlocks * kXBlockBytes + c * 16, from.weight + static_cast<int64_t>(unit) * kUnitBytes + offset);
  }

  /// The part of a plain stage's copies that belongs to one of kElements moments, so that they may be spread between tensor-core steps.
  template <int kElements>
  __device__ __forceinline__ void CopyPart(const Sources& from, int step, int stage, int element) const {
    const uint32_t to = SharedAddress(shared_) + stage * kStageBytes;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      if (p * kElements / kParts != element) continue;
      if (p < kWeightParts) {
        CopyWeightPart<true>(from, step, to, p);
      } else {
        const int b = (p - kWeightParts) / kRowParts, i = (p - kWeightParts) % kRowParts;
        const int token = threadIdx.x / 8 + i * (kThreads / 8);
        if (kTokens * 8 % kThreads == 0 || token < kTokens) {
          CopyAsync16(to + b * kXBlockBytes + token * 128 + (threadIdx.x % 8 ^ token % 8) * 16,
                      from.row[i] + (step * kStageK + b * kBlockK) * 2);
        }
      }
    }
  }

  /// A whole stage, of any kind. Columns beyond K are zeros: their codes are zeros, but what lies in memory there may be no number.
  __device__ void CopyStage(const Tile& tile, const Sources& from, int step, int stage) {
    if (IsPlain(step)) {
      CopyPart<1>(from, step, stage, 0);
      return;
    }
    uint8_t* to = shared_ + stage * kStageBytes;
#pragma unroll
    for (int i = 0; i < kWeightParts; ++i) CopyWeightPart<false>(from, step, SharedAddress(to), i);
    const char* x = static_cast<const char*>(a_.x);
    const int columns = min(kStageK, a_.K - step * kStageK);
    const int width = a_.x_aligned ? 8 : 1;
#pragma unroll 1
    for (int c = threadIdx.x * width; c < kTokens * kStageK; c += kThreads * width) {
      const int token = c / kStageK, column = c % kStageK, chunk = column % kBlockK / 8;
      uint8_t* at = to + column / kBlockK * kXBlockBytes + token * 128 + (chunk ^ (token % 8)) * 16;
      const int valid = max(columns - column, 0);
      const char* source = x + (row_of_[token] * a_.x_stride + step * kStageK + (valid > 0 ? column : 0)) * 2;
      if (a_.x_aligned) {
        CopyAsync16Zeroed(SharedAddress(at), source, min(valid * 2, 16));
      } else {
        reinterpret_cast<uint16_t*>(at)[column % 8] = valid > 0 ? *reinterpret_cast<const uint16_t*>(source) : uint16_t{0};
      }
    }
  }

 private:
  const LinearTileArgs& a_;
  uint8_t* shared_;
  int32_t* row_of_;
};

}  // namespace billfish::cuda
