// How the CTAs of the kernel w4a16_token_moe wait for each other: until a row of h is in memory.
//
// Nobody waits for a CTA that does not run yet: it might get no room on the GPU before this one has left. Each share of gate|up is claimed
// by who works on it; whoever has waited for long claims one that nobody has begun and does it, too. A CTA whose share was claimed by
// another does it all the same, to the same bits, and does not count it. The last one to leave clears the counters for the next launch.
#pragma once

#include "cuda/token_moe_args.h"

namespace billfish::cuda {

inline constexpr uint32_t kNoShare = 0xffffffffu;

/// True if nobody else has claimed it.
__device__ __forceinline__ bool Claim(TokenProgress* progress, uint32_t share) {
  const uint32_t bit = 1u << (share % 32);
  return (atomicOr(&progress->claimed[share / 32], bit) & bit) == 0;
}

/// By one warp. A share that nobody has begun, which is now the caller's, or kNoShare.
__device__ __forceinline__ uint32_t ClaimAny(TokenProgress* progress, int lane) {
  for (;;) {
    uint32_t open = 0;
    for (int i = 0; i < 32 && lane < kMostTokenShares / 32; ++i) open |= (32 * lane + i < gridDim.x ? 1u : 0u) << i;
    if (open != 0) open &= ~__ldcg(&progress->claimed[lane]);
    const uint32_t words = __ballot_sync(0xffffffffu, open != 0);
    if (words == 0) return kNoShare;
    const int word = __ffs(static_cast<int>(words)) - 1;
    const uint32_t share = 32 * word + __ffs(static_cast<int>(__shfl_sync(0xffffffffu, open, word))) - 1;
    const bool mine = lane == 0 && Claim(progress, share);
    if (__any_sync(0xffffffffu, mine)) return share;
  }
}

__device__ __forceinline__ uint32_t LoadAcquire(const uint32_t* word) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}
__device__ __forceinline__ void AddRelease(uint32_t* word, uint32_t value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
/// What it was before.
__device__ __forceinline__ uint32_t AddAcquireRelease(uint32_t* word, uint32_t value) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(word), "r"(value) : "memory");
  return before;
}

/// By one thread of each of `all` warps, the last thing that they do with the counters.
__device__ __forceinline__ void Leave(TokenProgress* progress, uint32_t all) {
  if (atomicAdd(&progress->left, 1u) != all - 1) return;
  for (uint32_t& word : progress->claimed) word = 0;
  for (uint32_t& word : progress->stored) word = 0;
  progress->left = 0;
}

}  // namespace billfish::cuda
