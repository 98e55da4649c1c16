// Twenty-four independent chains of one 512-bit instruction, as separate variables: an array would be kept in memory.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace billfish::cpu {
namespace {

template <class V, class Op>
inline __attribute__((always_inline)) void RunChains(int64_t count, V x, Op op) {
  V a0{}, a1{}, a2{}, a3{}, a4{}, a5{}, a6{}, a7{}, b0{}, b1{}, b2{}, b3{}, b4{}, b5{}, b6{}, b7{}, c0{}, c1{}, c2{}, c3{}, c4{}, c5{},
      c6{}, c7{};
  for (int64_t i = 0; i < count; ++i) {
    a0 = op(a0, x), a1 = op(a1, x), a2 = op(a2, x), a3 = op(a3, x), a4 = op(a4, x), a5 = op(a5, x), a6 = op(a6, x), a7 = op(a7, x);
    b0 = op(b0, x), b1 = op(b1, x), b2 = op(b2, x), b3 = op(b3, x), b4 = op(b4, x), b5 = op(b5, x), b6 = op(b6, x), b7 = op(b7, x);
    c0 = op(c0, x), c1 = op(c1, x), c2 = op(c2, x), c3 = op(c3, x), c4 = op(c4, x), c5 = op(c5, x), c6 = op(c6, x), c7 = op(c7, x);
    // Equal chains must stay distinct chains: each passes through an opaque statement.
    __asm__ volatile(""
                     : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5), "+v"(a6), "+v"(a7), "+v"(b0), "+v"(b1), "+v"(b2),
                       "+v"(b3));
    __asm__ volatile(""
                     : "+v"(b4), "+v"(b5), "+v"(b6), "+v"(b7), "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3), "+v"(c4), "+v"(c5), "+v"(c6),
                       "+v"(c7));
  }
}

}  // namespace
}  // namespace billfish::cpu
