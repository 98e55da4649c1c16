// What the blocks of a cluster say to each other: sm_90 and up. Before that a block is a cluster of its own.
#pragma once

#include "cuda/kernels/async_copy.cuh"

namespace billfish::cuda {

#if __CUDA_ARCH__ >= 900
inline constexpr bool kHasClusters = true;
#else
inline constexpr bool kHasClusters = false;
#endif

#if __CUDA_ARCH__ >= 900
/// The address in block `rank` of the cluster of the place that `shared` has in this block.
__device__ __forceinline__ uint32_t AddressInBlock(const void* shared, int rank) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(SharedAddress(shared)), "r"(rank));
  return there;
}

/// Every thread of the cluster, warps as a whole: what one wrote before, into any block's shared memory, all see behind it.
__device__ __forceinline__ void SyncCluster() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
#endif

}  // namespace billfish::cuda
