// Unrolled<n>(f): f.operator()<0>() ... f.operator()<n - 1>(), inlined, so that register arrays are indexed by constants.
#pragma once

#include <utility>

namespace billfish::cpu {
namespace {

template <int kCount, class F>
inline __attribute__((always_inline)) void Unrolled(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) { (f.template operator()<i>(), ...); }
  (std::make_integer_sequence<int, kCount>{});
}

}  // namespace
}  // namespace billfish::cpu
