// What a staged row of int8 holds for one slab.
//
//   256 x int8 q    each 8 k in the order 0 4 1 5 2 6 3 7 (low nibbles of a lane of codes are k 0 4 1 5, high nibbles 2 6 3 7)
//   8 x fp32 a      x = a q over 32 k
//   16 x int32      start values, -offset * sum q, which make up for codes being unsigned:
//                   one per 16 k for chunks of 16, else one per 32 k (8 used)
#pragma once

#include "cpu/panel_job.h"

namespace billfish::cpu {
namespace {

inline constexpr int kBlock = 32;  // k that share a scale
inline constexpr size_t kScalesAt = kSlabK, kStartsAt = kScalesAt + 8 * 4;

}  // namespace
}  // namespace billfish::cpu
