// From the times of a call to the figures of its row: how fast it was and what it could have reached.
#pragma once

#include <vector>

#include "row.h"

namespace billfish::bench {

/// The q-quantile, 0 <= q <= 1, of at least one value, linear between neighbours.
double Quantile(std::vector<double> values, double q);

/// What one call reads and computes.
struct Cost {
  double bytes = 0;       ///< of weights, stored, that it must read
  double operations = 0;  ///< 2 per multiply-add
};

/// What a machine does at most.
struct Roof {
  double bytes_per_s = 0;
  double operations_per_s = 0;  ///< 0: not measured, so that only reading bounds
  const char* arithmetic = "";  ///< what computes: "bf16 matmul"
};
Roof RoofOf(const CudaLimits& limits);

/// Fills repetitions, median_us, spread, gb_per_s, gflop_per_s, tokens_per_s (from row.M), limit, limit_value and fraction from the
/// `seconds` of one call each, at least one of them.
void FillRow(const std::vector<double>& seconds, const Cost& cost, const Roof& roof, Row& row);

}  // namespace billfish::bench
