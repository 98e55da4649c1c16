// Programmatic dependent launch: a kernel starts while its predecessor on the stream drains. sm_90 and up; nothing before that.
//
// Every kernel that is launched as a dependent calls WaitForPredecessor before it reads what any earlier kernel wrote or overwrites what
// one reads; a kernel that never called it would let its own successor run ahead of its predecessor.
#pragma once

namespace billfish::cuda {

/// Lets the next kernel of the stream start once every block has called this or ended.
__device__ __forceinline__ void AllowDependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Returns when the previous kernel of the stream has ended and its writes are visible.
__device__ __forceinline__ void WaitForPredecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace billfish::cuda
