// One tensor-core step: d[16 x 8] += a[16 x 16] * b[16 x 8], bf16 or fp16 by BF_ACT, fp32 accumulation.
//
// Fragments (PTX ISA, "Matrix Fragments for mma.m16n8k16"), lane l, q = l / 4, p = l % 4:
//   a   rows q (+ 8 in a[1], a[3]), columns 2p, 2p+1 (+ 8 in a[2], a[3]): what DecodePlane returns
//   b   b[0]: rows 2p, 2p+1 of column q; b[1]: rows 2p+8, 2p+9      (a row of activations with k contiguous: column q = token q)
//   d   d[0], d[1]: row q, columns 2p, 2p+1; d[2], d[3]: row q + 8
#pragma once

#include "cuda/kernels/numbers.cuh"

namespace billfish::cuda {

__device__ __forceinline__ void Mma(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  if constexpr (kHalf) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

/// Four 8x8 matrices of 16-bit values; lane l names row l % 8 of matrix l / 8 by its shared address, a multiple of 16.
__device__ __forceinline__ void LoadMatrices(uint32_t address, uint32_t v[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
               : "r"(address)
               : "memory");
}

/// An 8x8 matrix of 16-bit values, lane l holding columns 2 (l % 4), + 1 of row l / 4: its transpose, held the same way.
__device__ __forceinline__ uint32_t Transpose(uint32_t pair) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

}  // namespace billfish::cuda
