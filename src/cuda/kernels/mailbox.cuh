// Messages between the blocks of a cluster: sm_90 and up. Before that a block is a cluster of its own.
//
// Every block opens its mailbox for as many bytes as it will get, all blocks Send, each waits for its own mail alone. That is much cheaper
// than a barrier of the cluster, which orders all memory of the GPU before it.
#pragma once

#include "cuda/kernels/cluster.cuh"
#include "cuda/kernels/shared_barrier.cuh"

namespace billfish::cuda {

/// One in shared memory of each block, at the same place. The cluster is a whole row of the grid: gridDim.x blocks. A block that is
/// launched without a cluster has no way to another block's memory, its own included: its messages are plain stores.
class Mailbox {
 public:
  /// Called by all threads of all blocks of the cluster, once: `bytes` will come in all. Who sends calls
  /// AwaitOthers first.
  __device__ __forceinline__ void Open(int bytes) {
#if __CUDA_ARCH__ >= 900
    if (Alone()) return;
    if (threadIdx.x == 0) {
      InitBarrier(&barrier_, 1);
      ArriveExpecting(SharedAddress(&barrier_), static_cast<uint32_t>(bytes));
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
  }
  /// Returns when the mailboxes of the whole cluster are open.
  static __device__ __forceinline__ void AwaitOthers() {
#if __CUDA_ARCH__ >= 900
    if (Alone()) return;
    __syncwarp();
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
#endif
  }

  /// To block `rank`, at the place that `shared` has in this block. Behind AwaitOthers.
  __device__ __forceinline__ void Send(float* shared, int rank, float v) {
#if __CUDA_ARCH__ >= 900
    if (!Alone()) {
      asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(AddressInBlock(shared, rank)),
                   "f"(v), "r"(AddressInBlock(&barrier_, rank))
                   : "memory");
      return;
    }
#endif
    *shared = v;
  }
  __device__ __forceinline__ void Send(float2* shared, int rank, float2 v) {
#if __CUDA_ARCH__ >= 900
    if (!Alone()) {
      asm volatile(
          "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1,%2}, [%3];" ::"r"(AddressInBlock(shared, rank)),
          "f"(v.x), "f"(v.y), "r"(AddressInBlock(&barrier_, rank))
          : "memory");
      return;
    }
#endif
    *shared = v;
  }
  __device__ __forceinline__ void Send(float4* shared, int rank, float4 v) {
#if __CUDA_ARCH__ >= 900
    if (!Alone()) {
      Send(AddressInBlock(shared, rank), TellIn(rank), v);
      return;
    }
#endif
    *shared = v;
  }

#if __CUDA_ARCH__ >= 900
  /// Several messages to one block of what is a cluster for certain: AddressInBlock of the place, and what TellIn says.
  static __device__ __forceinline__ void Send(uint32_t there, uint32_t tell, float4 v) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1,%2,%3,%4}, [%5];" ::"r"(there), "f"(v.x),
                 "f"(v.y), "f"(v.z), "f"(v.w), "r"(tell)
                 : "memory");
  }
  __device__ __forceinline__ uint32_t TellIn(int rank) const { return AddressInBlock(&barrier_, rank); }
#endif

  /// All bytes have come. All threads of the block call it, or none.
  __device__ __forceinline__ void Await() {
#if __CUDA_ARCH__ >= 900
    if (!Alone()) {
      uint32_t done = 0;
      while (done == 0) {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(SharedAddress(&barrier_))
                     : "memory");
      }
      return;
    }
#endif
    __syncthreads();
  }

 private:
#if __CUDA_ARCH__ >= 900
  static __device__ __forceinline__ bool Alone() { return gridDim.x == 1; }
#endif
  uint64_t barrier_;
};

}  // namespace billfish::cuda
