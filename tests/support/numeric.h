// The tolerance checker of docs/NUMERICS.md: every element against a bound derived from K, the roundings of the types and the sum of the
// magnitudes that were added, then every 16 x 16 tile, every row and the whole by relative norm.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace billfish::test {

struct Bounds {
  double per_step;     ///< rounding of one fp32 operation, 2^-24
  double output;       ///< relative rounding of the stored result: 2^-8 for bf16, 2^-24 for fp32
  double safety = 8;   ///< times sqrt(K)
  double norm = 1e-6;  ///< relative norm of a tile, row or whole before the rounding of the output

  static Bounds ExactF32() { return {0x1p-24, 0x1p-24}; }
  static Bounds ExactBF16() { return {0x1p-24, 0x1p-8}; }
};

/// Row-major [rows, cols]; magnitude[i] = sum over k of |W x| for element i.
struct Expected {
  int64_t rows, cols, K;
  std::vector<double> values;
  std::vector<double> magnitude;
};

class NumericChecker {
 public:
  NumericChecker(const Expected& expected, const Bounds& bounds, std::string kernel)
      : expected_(expected), bounds_(bounds), kernel_(std::move(kernel)) {}

  testing::AssertionResult Check(const std::function<double(int64_t, int64_t)>& found) const {
    if (testing::AssertionResult result = Elements(found); !result) return result;
    for (int64_t r = 0; r < expected_.rows; r += 16) {
      for (int64_t c = 0; c < expected_.cols; c += 16) {
        if (auto result = Region("tile", found, r, std::min(r + 16, expected_.rows), c, std::min(c + 16, expected_.cols)); !result)
          return result;
      }
    }
    for (int64_t r = 0; r < expected_.rows; ++r) {
      if (auto result = Region("row", found, r, r + 1, 0, expected_.cols); !result) return result;
    }
    return Region("whole", found, 0, expected_.rows, 0, expected_.cols);
  }

 private:
  double Value(int64_t r, int64_t c) const { return expected_.values[static_cast<size_t>(r * expected_.cols + c)]; }
  double Magnitude(int64_t r, int64_t c) const { return expected_.magnitude[static_cast<size_t>(r * expected_.cols + c)]; }

  // sqrt(K) in place of the worst case K, with room for the scales (4) and a factor of safety.
  double Tolerance(int64_t r, int64_t c) const {
    const double steps = bounds_.safety * std::sqrt(static_cast<double>(expected_.K) + 4);
    return steps * bounds_.per_step * Magnitude(r, c) + bounds_.output * std::fabs(Value(r, c)) + 1e-37;
  }

  testing::AssertionResult Elements(const std::function<double(int64_t, int64_t)>& found) const {
    double worst = 0;
    int64_t worst_row = 0, worst_col = 0;
    for (int64_t r = 0; r < expected_.rows; ++r) {
      for (int64_t c = 0; c < expected_.cols; ++c) {
        const double difference = std::fabs(found(r, c) - Value(r, c));
        const double ratio = std::isfinite(difference) ? difference / Tolerance(r, c) : INFINITY;
        if (ratio <= worst) continue;
        worst = ratio;
        worst_row = r;
        worst_col = c;
      }
    }
    if (worst <= 1) return testing::AssertionSuccess();
    return testing::AssertionFailure() << kernel_ << ": worst element at row " << worst_row << ", col " << worst_col << " is "
                                       << found(worst_row, worst_col) << ", expected " << Value(worst_row, worst_col) << ", off by "
                                       << worst << " times its tolerance " << Tolerance(worst_row, worst_col);
  }

  // Relative norm against the norm of what was added: sums that cancel are judged by what went into them.
  testing::AssertionResult Region(const char* what, const std::function<double(int64_t, int64_t)>& found, int64_t r0, int64_t r1,
                                  int64_t c0, int64_t c1) const {
    double error = 0, size = 0, rounding = 0;
    for (int64_t r = r0; r < r1; ++r) {
      for (int64_t c = c0; c < c1; ++c) {
        const double difference = found(r, c) - Value(r, c);
        error += difference * difference;
        size += Magnitude(r, c) * Magnitude(r, c);
        rounding += bounds_.output * bounds_.output * Value(r, c) * Value(r, c);
      }
    }
    const double limit = bounds_.norm * std::sqrt(size) + std::sqrt(rounding) + 1e-37;
    if (std::sqrt(error) <= limit) return testing::AssertionSuccess();
    return testing::AssertionFailure() << kernel_ << ": " << what << " rows " << r0 << ".." << r1 - 1 << ", cols " << c0 << ".." << c1 - 1
                                       << " is off by norm " << std::sqrt(error) << ", above " << limit;
  }

  const Expected& expected_;
  Bounds bounds_;
  std::string kernel_;
};

}  // namespace billfish::test
