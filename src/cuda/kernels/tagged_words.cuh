// What CTAs tell each other in global memory: words of 32 bits of data that say which launch they are from. Who needs one reads it until it
// does; there is no flag beside it, and nothing to fence.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// The launch after that of number `last`. None has 0, which words that nobody has written yet are from.
__device__ __forceinline__ uint32_t NextLaunch(uint32_t last) { return last == 0xffffffffu ? 1 : last + 1; }

__device__ __forceinline__ void StoreWord(uint64_t* to, uint32_t value, uint32_t launch) {
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"(static_cast<uint64_t>(launch) << 32 | value) : "memory");
}
__device__ __forceinline__ uint64_t LoadWord(const uint64_t* from) {
  uint64_t word;
  asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(word) : "l"(from) : "memory");
  return word;
}
__device__ __forceinline__ ulonglong2 LoadWords(const uint64_t* from) {
  ulonglong2 words;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0,%1}, [%2];" : "=l"(words.x), "=l"(words.y) : "l"(from) : "memory");
  return words;
}
__device__ __forceinline__ bool IsFrom(uint64_t word, uint32_t launch) { return static_cast<uint32_t>(word >> 32) == launch; }
__device__ __forceinline__ bool IsFrom(const ulonglong2& words, uint32_t launch) {
  return IsFrom(words.x, launch) && IsFrom(words.y, launch);
}

}  // namespace billfish::cuda
