// Times a call against what the machine could do at that moment.
#pragma once

#include <cstdint>
#include <functional>

#include "billfish/limits.h"
#include "billfish/status.h"
#include "row.h"

namespace billfish::bench {

/// The arithmetic limit of exact bf16, exact f32 and fast calls on this machine.
struct Peak {
  Arithmetic arithmetic;
  double operations_per_s;  ///< measured before the first row
  const char* name;         ///< "bf16 dot", ...
};
Peak PeakOf(const Limits& limits, bool fast, bool f32_activations);

/// Calls that rotate over copies of their weights, so that no cache still holds what a call reads.
struct Workload {
  int64_t copies = 1;
  std::function<Status(int64_t call)> run;    ///< call counts up without end; the callee takes it modulo what it rotates
  std::function<double(int64_t call)> bytes;  ///< weight bytes that this call must read
  double operations = 0;                      ///< of one call, 2 per multiply-add
  Peak peak;                                  ///< of the arithmetic it uses
};

class Meter {
 public:
  /// `budget_s`: seconds of repetitions for each workload, warm-up aside; at least five repetitions are made.
  Meter(BandwidthProbe probe, int threads, double budget_s) : probe_(std::move(probe)), threads_(threads), budget_s_(budget_s) {}

  /// Fills repetitions, median_us, spread, gb_per_s, gflop_per_s, limit, limit_value and fraction. One repetition is a block of
  /// consecutive calls of at least two milliseconds in all (at most one round over the copies), with probes of the bandwidth and of
  /// the arithmetic before and after: both limits move with the clock, the neighbours and where the cores lie.
  Status Measure(const Workload& workload, Row& row) const;

 private:
  BandwidthProbe probe_;
  int threads_;
  double budget_s_;
};

/// How many copies of a weight of `bytes` make more than every cache of this machine together: at least 512 MB, at least 2.
int64_t CopiesOf(size_t bytes);

}  // namespace billfish::bench
