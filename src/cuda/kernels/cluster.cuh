// What the blocks of a cluster say to each other: sm_90 and up. Before that a block is a cluster of its own.
#pragma once

#include "cuda/kernels/async_copy.cuh"

namespace billfish::cuda {

#if __CUDA_ARCH__ >= 900
inline constexpr bool kHasClusters = true;
#else
inline constexpr bool kHasClusters = false;
#endif

/// The first half of a barrier of the whole cluster: writes before it, to any block's shared memory, are seen behind ClusterWait.
__device__ __forceinline__ void ClusterArrive() {
#if __CUDA_ARCH__ >= 900
  __syncwarp();
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void ClusterWait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
  __syncthreads();
#endif
}

#if __CUDA_ARCH__ >= 900
/// The address in block `rank` of the cluster of the place that `shared` has in this block.
__device__ __forceinline__ uint32_t AddressInBlock(const void* shared, int rank) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(SharedAddress(shared)), "r"(rank));
  return there;
}
#endif

/// Writes to shared memory of block `rank` of the cluster at the place that `shared` has in this block.
__device__ __forceinline__ void StoreInBlock(float4* shared, int rank, float4 v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(AddressInBlock(shared, rank)), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
#else
  *shared = v;
#endif
}
__device__ __forceinline__ void StoreInBlock(float2* shared, int rank, float2 v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.v2.f32 [%0], {%1,%2};" ::"r"(AddressInBlock(shared, rank)), "f"(v.x), "f"(v.y) : "memory");
#else
  *shared = v;
#endif
}

__device__ __forceinline__ void StoreInBlock(float* shared, int rank, float v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(AddressInBlock(shared, rank)), "f"(v) : "memory");
#else
  *shared = v;
#endif
}

}  // namespace billfish::cuda
