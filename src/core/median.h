// The median of repeated timings.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace billfish {

/// The middle of some numbers, the upper one of two. Precondition: there are any.
inline double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace billfish
