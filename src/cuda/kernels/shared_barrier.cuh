// Barriers in shared memory (mbarrier, sm_80 and up): some arrive, others wait until all of a phase have.
//
// Phases of a barrier are numbered from 0; a waiter may be one phase late, not two.
#pragma once

#include "cuda/kernels/async_copy.cuh"

namespace billfish::cuda {

/// A phase completes with so many arrivals. Others see the barrier after a fence and a barrier of the whole CTA or cluster.
__device__ __forceinline__ void InitBarrier(const uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void Arrive(uint32_t barrier) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(barrier) : "memory");
}

/// Returns once phase `phase` is complete.
__device__ __forceinline__ void Await(const uint64_t* barrier, int phase) {
  const uint32_t address = SharedAddress(barrier);
  uint32_t done = 0;
  while (done == 0) {
#if __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(address), "r"(phase & 1)
                 : "memory");
#else
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(address), "r"(phase & 1)
                 : "memory");
#endif
  }
}

#if __CUDA_ARCH__ >= 900
/// True in one lane of a whole warp. The compiler knows it, and does not loop over lanes for instructions that take uniform registers.
__device__ __forceinline__ bool ElectLane() {
  uint32_t elected;
  asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p; }" : "=r"(elected));
  return elected != 0;
}

/// Arrives; the phase completes only when so many bytes have been written by copies that name the barrier, too.
__device__ __forceinline__ void ArriveExpecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(barrier), "r"(bytes) : "memory");
}

/// Copies `bytes`, a multiple of 16, between addresses that are too, and tells the barrier.
__device__ __forceinline__ void CopyBulk(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared), "l"(global),
               "r"(bytes), "r"(barrier)
               : "memory");
}

/// Copies the box of a two-dimensional tensor that begins at (column, row), zeros where there is none, and tells the barrier.
__device__ __forceinline__ void CopyBox(uint32_t shared, const void* map, int column, int row, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(shared),
               "l"(map), "r"(column), "r"(row), "r"(barrier)
               : "memory");
}
#endif

}  // namespace billfish::cuda
