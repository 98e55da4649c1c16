// One asynchronous tensor-core step of a warpgroup on sm_90a: d[64 x N] (+)= a[64 x 16] * b[16 x N], a in registers, b in shared memory.
//
// Fragments (PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16"): warp w of the group holds rows 16 w .. of a and d in the order
// of mma.m16n8k16, so that a is what DecodePlane returns and d[n] the block of columns 8 n. b is N rows of 64 16-bit numbers each, 128
// bytes with their 16-byte chunks swizzled by row % 8, a multiple of 1024 bytes from the start of shared memory.
//
//   FenceRegisters, GroupMma ..., CommitMma: a and d must not be touched until WaitMma says that the group is done.
#pragma once

#include "cuda/kernels/numbers.cuh"

namespace billfish::cuda {

/// Orders what was written to registers before the steps that follow.
__device__ __forceinline__ void FenceRegisters() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void CommitMma() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Returns when at most kGroups committed groups of this warpgroup are under way.
template <int kGroups>
__device__ __forceinline__ void WaitMma() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}

/// What wgmma is told about b (PTX ISA, "Matrix Descriptor Format"): address / 16, 1024 bytes from eight rows to the next eight, 128-byte
/// swizzle. Column 16 i of the 64 is 2 i further.
__device__ __forceinline__ uint64_t SwizzledDescriptor(uint32_t shared) {
  return static_cast<uint64_t>((shared & 0x3ffffu) >> 4) | uint64_t{1} << 16 | uint64_t{1024 / 16} << 32 | uint64_t{1} << 62;
}

// The type of a and b.
#if BF_ACT == 1
#define BF_TYPE "f16"
#else
#define BF_TYPE "bf16"
#endif
#define BF_D(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define BF_D4(n) BF_D(n), BF_D(n + 1), BF_D(n + 2), BF_D(n + 3)
#define BF_D8(n) BF_D4(n), BF_D4(n + 4)
#define BF_WGMMA(columns, sums, a_list, b, scale)                                                                                      \
  "{\n.reg .pred p;\nsetp.ne.b32 p, " scale ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns "k16.f32." BF_TYPE "." BF_TYPE " {" sums \
  "}, {" a_list "}, " b ", p, 1, 1, 0;\n}\n"

/// kN8 blocks of eight columns. accumulate = 0: d is overwritten.
template <int kN8>
__device__ __forceinline__ void GroupMma(float (&d)[kN8][4], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  if constexpr (kN8 == 1) {
    asm volatile(BF_WGMMA("8", "%0, %1, %2, %3", "%4, %5, %6, %7", "%8", "%9")
                 : BF_D(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate)
                 : "memory");
  } else if constexpr (kN8 == 2) {
    asm volatile(BF_WGMMA("16", "%0, %1, %2, %3, %4, %5, %6, %7", "%8, %9, %10, %11", "%12", "%13")
                 : BF_D(0), BF_D(1)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate)
                 : "memory");
  } else if constexpr (kN8 == 4) {
    asm volatile(BF_WGMMA("32", "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15", "%16, %17, %18, %19", "%20", "%21")
                 : BF_D4(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate)
                 : "memory");
  } else if constexpr (kN8 == 8) {
    asm volatile(BF_WGMMA("64",
                          "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
                          "%24, %25, %26, %27, %28, %29, %30, %31",
                          "%32, %33, %34, %35", "%36", "%37")
                 : BF_D8(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate)
                 : "memory");
  } else if constexpr (kN8 == 12) {
    asm volatile(
        BF_WGMMA("96",
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "
                 "%26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47",
                 "%48, %49, %50, %51", "%52", "%53")
        : BF_D8(0), BF_D4(8)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate)
        : "memory");
  } else if constexpr (kN8 == 16) {
    asm volatile(BF_WGMMA("128",
                          "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
                          "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "
                          "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63",
                          "%64, %65, %66, %67", "%68", "%69")
                 : BF_D8(0), BF_D8(8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate)
                 : "memory");
  } else if constexpr (kN8 == 32) {
    asm volatile(BF_WGMMA("256",
                          "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
                          "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "
                          "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, "
                          "%68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, "
                          "%90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "
                          "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127",
                          "%128, %129, %130, %131", "%132", "%133")
                 : BF_D8(0), BF_D8(8), BF_D8(16), BF_D8(24)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate)
                 : "memory");
  } else {
    static_assert(kN8 == 1, "1, 2, 4, 8, 12, 16 or 32 blocks of columns");
  }
}

#undef BF_TYPE
#undef BF_D
#undef BF_D4
#undef BF_D8
#undef BF_WGMMA

}  // namespace billfish::cuda
