// The argument of the tile kernels, one struct passed by value. Shared with device code: freestanding.
#pragma once

#include "cuda/activation_kind.h"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// Rows first_row .. first_row + rows - 1 of the sorted rows, all of one expert; rows is 1 .. the kernel's token tile.
struct TileWork {
  int32_t expert, first_row, rows;
};

/// The type of y; also the values of BF_OUT.
enum class OutType : int32_t { kF32 = 0, kBF16 = 1, kF16 = 2 };

/// x as the driver describes it to the copies of tensors: whatever cuTensorMapEncodeTiled writes.
struct alignas(64) TensorMap {
  uint64_t words[16] = {};
};

struct LinearTileArgs {
  const uint8_t* weight = nullptr;   ///< units in the layout of the kernel
  const float* row_scale = nullptr;  ///< [E][panels * 64], may be null
  const float* bias = nullptr;       ///< [E][panels * 64] in packed row order, may be null
  const void* x = nullptr;           ///< [rows of x][K], 16-bit
  void* y = nullptr;
  int64_t x_stride = 0, y_stride = 0;  ///< elements from row to row
  int64_t expert_bytes = 0;            ///< from one expert's units to the next
  int32_t M = 0, N = 0, K = 0;         ///< N: columns of y, half of the packed rows for a gated activation
  int32_t panels = 0, units = 0;
  int32_t tile_panels = 0;  ///< of a tile
  int32_t stages = 0;       ///< sm_90a: slots of shared memory that are in use, at least three
  int32_t stage_bytes = 0;  ///< of each
  int32_t splits = 1;       ///< dense: parts of K = CTAs of a cluster
  int32_t band = 1;         ///< dense: token tiles that are walked through for one out tile before the next
  OutType out = OutType::kBF16;
  bool x_aligned = true;  ///< x and its rows start at multiples of 16 bytes
  bool y_aligned = true;  ///< y and its rows too
  // grouped
  const TileWork* work = nullptr;
  const int32_t* work_count = nullptr;  ///< on the device
  const int32_t* source = nullptr;      ///< row of x for a sorted row; null = the sorted row itself
  ActivationParameters activation;
};

}  // namespace billfish::cuda
