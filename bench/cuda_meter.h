// Times calls on a GPU as nodes of one graph, in rounds: each call of a round has its own copy of the weights.
#pragma once

#include <functional>

#include "billfish/cuda.h"
#include "row.h"

namespace billfish::bench {

/// Bytes of distinct weights that a round reads at least, so that no call finds its weights in the L2 cache.
inline constexpr size_t kCudaRotationBytes = size_t{400} << 20;

/// How many copies of a weight of `bytes` a round needs.
int64_t CudaCopiesOf(size_t bytes);

struct CudaWorkload {
  int64_t copies = 1;
  std::function<Status(int64_t call)> run;  ///< launches call 0..copies-1 on the meter's stream
  double bytes = 0;                         ///< weight bytes that one call must read
  double operations = 0;                    ///< of one call, 2 per multiply-add
};

class CudaMeter {
 public:
  static Result<CudaMeter> Create(Device device);

  /// Captures rounds of calls and replays them. Fills repetitions, median_us, spread, gb_per_s, gflop_per_s, tokens_per_s and, from
  /// `limits`, limit, limit_value and fraction.
  Status Measure(const CudaWorkload& workload, const CudaLimits& limits, Row& row) const;
  /// Median microseconds of one call of a round.
  Result<double> MedianUs(const CudaWorkload& workload) const;

  CudaStream stream() const { return stream_.get(); }
  Device device() const { return device_; }

 private:
  /// Seconds of one call, for each replay of the graph.
  Result<std::vector<double>> Times(const CudaWorkload& workload) const;
  Device device_;
  Stream stream_;
};

}  // namespace billfish::bench
