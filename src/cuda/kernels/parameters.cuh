// The arguments of a kernel lie in constant memory that no SM has read before: each line that code comes to is a wait of its own.
#pragma once

namespace billfish::cuda {

/// The last warp of the block asks for all lines of `args`, a __grid_constant__ argument of up to 2 KB, at once. The first thing that a
/// kernel does.
template <class Args>
__device__ __forceinline__ void FetchParameters(const Args& args) {
  constexpr unsigned kLineWords = 16, kLines = (sizeof(Args) + 4 * kLineWords - 1) / (4 * kLineWords);
  __shared__ volatile unsigned sink[kLines];  // or the compiler would see that nobody needs them
  if (threadIdx.x / 32 != blockDim.x / 32 - 1) return;
  const unsigned line = threadIdx.x % 32;
  if (line < kLines) sink[line] = reinterpret_cast<const unsigned*>(&args)[line * kLineWords];
}

}  // namespace billfish::cuda
