#include "timing.h"

#include <algorithm>

namespace billfish::bench {

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double place = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(place);
  const size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (place - static_cast<double>(low)) * (values[high] - values[low]);
}

Roof RoofOf(const CudaLimits& limits) { return {limits.read_bandwidth, limits.bf16_matmul, "bf16 matmul"}; }

void FillRow(const std::vector<double>& seconds, const Cost& cost, const Roof& roof, Row& row) {
  const double median = Quantile(seconds, 0.5);
  row.repetitions = static_cast<int>(seconds.size());
  row.median_us = median * 1e6;
  row.spread = (Quantile(seconds, 0.75) - Quantile(seconds, 0.25)) / median;
  row.gb_per_s = cost.bytes / median / 1e9;
  row.gflop_per_s = cost.operations / median / 1e9;
  row.tokens_per_s = static_cast<double>(row.M) / median;
  const double reading = cost.bytes / roof.bytes_per_s;
  const double computing = roof.operations_per_s > 0 ? cost.operations / roof.operations_per_s : 0;
  const bool memory_bound = reading >= computing;
  row.limit = memory_bound ? "read bandwidth" : roof.arithmetic;
  row.limit_value = (memory_bound ? roof.bytes_per_s : roof.operations_per_s) / 1e9;
  row.fraction = std::max(reading, computing) / median;
}

}  // namespace billfish::bench
