// A row of x or h to shared memory, by one warp of the kernel w4a16_token_moe that waits for nothing else when it waits for its copies.
#pragma once

#include "cuda/kernels/shared_barrier.cuh"

namespace billfish::cuda {

/// Of K columns `chunks` times 8, zeros beyond K. Every lane arrives at the barrier; it completes when they are there.
__device__ __forceinline__ void CopyTokenRow(const void* row, int K, bool aligned, uint32_t to, int chunks, int lane,
                                             const uint64_t* here) {
  const auto* from = static_cast<const uint16_t*>(row);
#if __CUDA_ARCH__ >= 900
  if (aligned) {
    const int valid = (K + 7) / 8;
    for (int chunk = valid + lane; chunk < chunks; chunk += 32) CopyAsync16Zeroed(to + chunk * 16, row, 0);
    CommitCopies();
    WaitCopies<0>();
    asm volatile("fence.proxy.async;" ::: "memory");
    __syncwarp();
    if (lane == 0) {
      ArriveExpecting(SharedAddress(here), static_cast<uint32_t>(valid) * 16);
      CopyBulk(to, from, static_cast<uint32_t>(valid) * 16, SharedAddress(here));
    } else {
      Arrive(SharedAddress(here));
    }
    return;
  }
#endif
#pragma unroll 4
  for (int chunk = lane; chunk < chunks; chunk += 32) {
    const int k = chunk * 8;
    if (aligned) {
      CopyAsync16Zeroed(to + chunk * 16, k < K ? from + k : from, k < K ? 16 : 0);
    } else {
      CopyUnaligned(to + chunk * 16, from + k, K - k);
    }
  }
  CommitCopies();
  WaitCopies<0>();
  Arrive(SharedAddress(here));
}

}  // namespace billfish::cuda
