// Copies from global to shared memory that run beside the arithmetic: cp.async, sm_80 and up.
//
// A thread's copies since its last CommitCopies form a group; WaitCopies<n> waits until at most n of the thread's groups are under way.
// Other threads see the bytes after a barrier.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// The 32-bit address that shared-memory instructions take.
__device__ __forceinline__ uint32_t SharedAddress(const void* shared) { return static_cast<uint32_t>(__cvta_generic_to_shared(shared)); }

/// kBytes = 2, 4, 8, 16 or 32 bytes at an address aligned to them (32: to 16).
template <int kBytes>
__device__ __forceinline__ void LoadShared(uint32_t shared, uint32_t* words) {
  if constexpr (kBytes == 2) {
    asm volatile("{ .reg .b16 h; ld.shared.b16 h, [%1]; cvt.u32.u16 %0, h; }" : "=r"(words[0]) : "r"(shared) : "memory");
  } else if constexpr (kBytes == 4) {
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(words[0]) : "r"(shared) : "memory");
  } else if constexpr (kBytes == 8) {
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "r"(shared) : "memory");
  } else {
    static_assert(kBytes == 16 || kBytes == 32);
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                   : "=r"(words[4 * i]), "=r"(words[4 * i + 1]), "=r"(words[4 * i + 2]), "=r"(words[4 * i + 3])
                   : "r"(shared + 16 * i)
                   : "memory");
    }
  }
}

/// L2 policy of bytes that are read once: first to be evicted, so that activations and partial sums stay.
__device__ __forceinline__ uint64_t EvictFirst() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// 16 bytes, both sides 16-byte aligned, past L1.
__device__ __forceinline__ void CopyAsync16(uint32_t shared, const void* global, uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "l"(policy) : "memory");
}

__device__ __forceinline__ void CopyAsync16(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}

/// 16 bytes of which the first `valid` are read, the rest become zero; valid = 0 reads nothing, but `global` must be a mapped address.
__device__ __forceinline__ void CopyAsync16Zeroed(uint32_t shared, const void* global, int valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid) : "memory");
}

/// 8 values of 16 bits from any address, of which `valid` are read and the rest become zero: at once, not beside the arithmetic.
__device__ __forceinline__ void CopyUnaligned(uint32_t shared, const uint16_t* global, int valid) {
  uint32_t v[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    v[j] = (2 * j < valid ? global[2 * j] : 0u) | (2 * j + 1 < valid ? static_cast<uint32_t>(global[2 * j + 1]) << 16 : 0u);
  }
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(shared), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3]) : "memory");
}

__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int kGroups>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

/// A 16-byte load for bytes that are read once: not kept in L1, first to be evicted from L2.
__device__ __forceinline__ uint4 LoadOnce16(const void* global, uint64_t policy) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0,%1,%2,%3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global), "l"(policy));
  return v;
}

/// The same for 0, 2, 4, 8, 16 or 32 bytes at an address aligned to them (32: to 16).
template <int kBytes>
__device__ __forceinline__ void LoadOnce(const void* global, uint64_t policy, uint32_t* words) {
  if constexpr (kBytes == 2) {
    asm volatile("{ .reg .b16 h; ld.global.nc.L1::no_allocate.L2::cache_hint.b16 h, [%1], %2; cvt.u32.u16 %0, h; }"
                 : "=r"(words[0])
                 : "l"(global), "l"(policy));
  } else if constexpr (kBytes == 4) {
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.u32 %0, [%1], %2;" : "=r"(words[0]) : "l"(global), "l"(policy));
  } else if constexpr (kBytes == 8) {
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v2.u32 {%0,%1}, [%2], %3;"
                 : "=r"(words[0]), "=r"(words[1])
                 : "l"(global), "l"(policy));
  } else {
    static_assert(kBytes % 16 == 0);
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      const uint4 v = LoadOnce16(static_cast<const uint8_t*>(global) + 16 * i, policy);
      words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
    }
  }
}

}  // namespace billfish::cuda
