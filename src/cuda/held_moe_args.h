// The arguments of the kernel w4a16_held_moe, one struct by value. Shared with device code: freestanding.
#pragma once

#include "cuda/activation_kind.h"
#include "cuda/moe_args.h"
#include "cuda/norm_rows_args.h"
#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// Slots of a call, row blocks of gate|up of a CTA, and of down units of a warp at most.
inline constexpr int kMostHeldSlots = 32, kMostHeldBlocks = 8, kMostHeldUnits = 24;
/// CTAs of a launch, and values of h at most.
inline constexpr int kMostHeldCtas = 512, kMostHeldValues = 16384;
/// Polls, of more than half a microsecond each, after which a waiting warp computes what is missing.
inline constexpr int kHeldPatience = 200;
/// Experts of a routing rule at most.
inline constexpr int kMostHeldLogits = 256;

/// What a CTA tells the others, of one workspace. All zeros before its first launch.
struct alignas(128) HeldExchange {
  uint32_t launches[kMostHeldCtas];  ///< so far, counted by each CTA for itself: the same number in all of them
  uint64_t h[kMostHeldValues / 2];   ///< two values and, in the upper half, the number of the launch that they are from
  uint64_t logits[kMostHeldLogits];  ///< one value and the same
};

/// One matrix of every expert.
struct HeldMatrix {
  const uint8_t* weight;   ///< units in the layout of the kernel
  const float* row_scale;  ///< [E][16 blocks], may be null
  const float* bias;       ///< [E][16 blocks] in packed row order, may be null
  int32_t expert_chunks;   ///< 16 bytes each, from one expert's units to the next
  int32_t blocks;          ///< of 16 packed rows
  int32_t units;           ///< along K
};

struct HeldMoeArgs {
  HeldMatrix gate_up{}, down{};
  const void* x = nullptr;         ///< [K] 16-bit, 16 bytes aligned
  const int32_t* ids = nullptr;    ///< [top_k]; those outside [first_expert, first_expert + E) add nothing
  const float* weights = nullptr;  ///< [top_k]
  const void* addend = nullptr;    ///< like y, or null; may be y
  void* y = nullptr;               ///< [N]
  HeldExchange* exchange = nullptr;
  int32_t K = 0, N = 0;
  int32_t top_k = 0, first_expert = 0, E = 0;
  int32_t gate_up_blocks = 0;      ///< of a CTA at most
  int32_t gate_up_units = 0;       ///< of a warp in each of them at most
  int32_t down_units = 0;          ///< of a warp at most
  OutType y_type = OutType::kF32;  ///< of y and addend
  ActivationParameters activation;
};

/// Where the kernel makes x from the residual stream and routes it, too: x, ids and weights are not read then.
struct HeldNormedArgs : HeldMoeArgs {
  NormRowsArgs norm;                  ///< of one row, of which y is not written
  const uint16_t* router = nullptr;   ///< [route.E][K] bf16, 16 bytes aligned
  const float* logit_bias = nullptr;  ///< [route.E] or null
  RouteArgs route;                    ///< a softmax over the chosen logits; logits, ids and weights are not used
};

}  // namespace billfish::cuda
