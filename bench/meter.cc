#include "meter.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "timing.h"

namespace billfish::bench {
namespace {

constexpr int kMinRepetitions = 5;
constexpr int kMaxRepetitions = 200;
constexpr double kBlockSeconds = 2e-3;
constexpr double kColdBytes = 512e6;  // going round 190 MB finds a twentieth in a 32 MiB cache whose replacement is not strictly by age

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Peak PeakOf(const Limits& limits, bool fast, bool f32_activations) {
  if (fast) return {Arithmetic::kInt8Dot, limits.int8_dot, "int8 dot"};
  if (f32_activations) return {Arithmetic::kFp32Fma, limits.fp32_fma, "fp32 fma"};
  return {Arithmetic::kBf16Dot, limits.bf16_dot, "bf16 dot"};
}

int64_t CopiesOf(size_t bytes) {
  return std::max<int64_t>(2, static_cast<int64_t>(std::ceil(kColdBytes / static_cast<double>(std::max<size_t>(bytes, 1)))));
}

Status Meter::Measure(const Workload& workload, Row& row) const {
  int64_t call = 0;
  double once = 1e30;
  for (int warm_up = 0; warm_up < 3; ++warm_up) {
    const double start = Now();
    if (Status status = workload.run(call++); !status.ok()) return status;
    once = std::min(once, Now() - start);
    if (once > budget_s_) break;
  }
  const int64_t block = std::clamp<int64_t>(static_cast<int64_t>(std::ceil(kBlockSeconds / once)), 1, workload.copies);

  std::vector<double> seconds, bytes, bandwidths, peaks, fractions;
  const double end = Now() + budget_s_;
  double bandwidth_before = probe_.Measure();
  double peak_before = MeasurePeakNow(workload.peak.arithmetic, threads_);
  while (static_cast<int>(seconds.size()) < kMaxRepetitions && (static_cast<int>(seconds.size()) < kMinRepetitions || Now() < end)) {
    double block_bytes = 0;
    for (int64_t i = 0; i < block; ++i) block_bytes += workload.bytes(call + i);
    const double start = Now();
    for (int64_t i = 0; i < block; ++i) {
      if (Status status = workload.run(call + i); !status.ok()) return status;
    }
    const double elapsed = Now() - start;
    call += block;
    const double peak_after = MeasurePeakNow(workload.peak.arithmetic, threads_);
    const double bandwidth_after = probe_.Measure();
    // Means of before and after: whatever takes time from probes takes it from the call, and the median of the fractions drops the
    // repetitions in which it took more from one of them.
    const double peak = (peak_before + peak_after) / 2;
    const double bandwidth = (bandwidth_before + bandwidth_after) / 2;
    peak_before = peak_after;
    bandwidth_before = bandwidth_after;
    const double calls = static_cast<double>(block);
    seconds.push_back(elapsed / calls);
    bytes.push_back(block_bytes / calls);
    bandwidths.push_back(bandwidth);
    peaks.push_back(peak);
    fractions.push_back(std::max(block_bytes / bandwidth, calls * workload.operations / peak) / elapsed);
  }
  FillRow(seconds, {Quantile(bytes, 0.5), workload.operations}, {Quantile(bandwidths, 0.5), Quantile(peaks, 0.5), workload.peak.name}, row);
  row.fraction = Quantile(fractions, 0.5);  // each repetition against its own probes
  return {};
}

}  // namespace billfish::bench
