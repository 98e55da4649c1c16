// The argument of the kernel w4a16_token_moe, one struct by value. Shared with device code: freestanding.
#pragma once

#include "cuda/activation_kind.h"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// Slots of a call at most, one a lane.
inline constexpr int kMostTokenSlots = 32;
/// CTAs of a launch at most.
inline constexpr int kMostTokenShares = 256;

/// How far the CTAs of a launch have come. All zeros between launches.
struct alignas(128) TokenProgress {
  uint32_t claimed[kMostTokenShares / 32];  ///< a bit for each share of gate|up that a CTA works on
  uint32_t left;                            ///< warps that will not look here again
  uint32_t stored[kMostTokenSlots];         ///< panels of a row of h that are in memory
  uint32_t added[kMostTokenShares];         ///< steps of the panel of down that begins in a share and goes on in others
};

/// One matrix of every expert.
struct TokenMatrix {
  const uint8_t* weight;   ///< units in the layout of the kernel
  const float* row_scale;  ///< [E][panels * 64], may be null
  const float* bias;       ///< [E][panels * 64] in packed row order, may be null
  int64_t expert_bytes;    ///< from one expert's units to the next
  int32_t K;
  int32_t panels, units;
};

struct TokenMoeArgs {
  TokenMatrix gate_up{}, down{};
  const void* x = nullptr;         ///< [K] 16-bit
  void* h = nullptr;               ///< [top_k][h_stride] 16-bit, rows at multiples of 16 bytes
  const int32_t* ids = nullptr;    ///< [top_k]; those outside [first_expert, first_expert + E) add nothing
  const float* weights = nullptr;  ///< [top_k]
  const void* addend = nullptr;    ///< like y, or null
  void* y = nullptr;               ///< [N]
  float* sums = nullptr;           ///< [2 gridDim.x][kPanelRows] of shares of a panel of down that a CTA has not to itself
  TokenProgress* progress = nullptr;
  int32_t N = 0;  ///< of y
  int32_t h_stride = 0;
  int32_t top_k = 0, first_expert = 0, E = 0;
  int32_t x_aligned = 0;           ///< x starts at a multiple of 16 bytes and may be read 16 at a time
  OutType y_type = OutType::kF32;  ///< of y and addend
  ActivationParameters activation;
};

}  // namespace billfish::cuda
