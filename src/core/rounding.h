// Whole numbers, rounded up.
#pragma once

#include <concepts>
#include <type_traits>

namespace billfish {

/// How many pieces of `size` hold `count`: ceil(count / size). Preconditions: count >= 0, size > 0, and count + size - 1 is no overflow
/// (sizes out of a file are not known to keep that).
template <std::integral T>
constexpr T DivideUp(T count, std::type_identity_t<T> size) {
  return (count + size - 1) / size;
}

/// The least multiple of `size` that is no less than `count`. Preconditions as above.
template <std::integral T>
constexpr T RoundUp(T count, std::type_identity_t<T> size) {
  return DivideUp(count, size) * size;
}

}  // namespace billfish
