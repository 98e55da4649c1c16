// Reads memory and does nothing else: what a kernel that streams weights could reach at most.
//
// 16-byte loads straight to registers, kLoads in flight per thread; blocks stride over the buffer. The sum is stored only if it is a value
// that the buffer, which the host fills with zeros and ones, cannot give: the loads stay, the store never happens.
#include "cuda/tile_layout.h"

namespace {
constexpr int kLoads = 8;

__device__ __forceinline__ uint4 LoadStreaming(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}
}  // namespace

// data: `vectors` 16-byte words, a multiple of gridDim.x * blockDim.x * kLoads.
extern "C" __global__ void __launch_bounds__(512) read_probe(const uint4* data, uint64_t vectors, uint32_t* never) {
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  uint32_t sum = 0;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < vectors; i += step * kLoads) {
    uint4 v[kLoads];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) v[j] = LoadStreaming(data + i + j * step);
#pragma unroll
    for (int j = 0; j < kLoads; ++j) sum |= v[j].x | v[j].y | v[j].z | v[j].w;
  }
  if (sum > 1) *never = sum;
}
