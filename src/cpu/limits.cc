#include "cpu/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "core/parallel.h"
#include "cpu/isa.h"
#include "cpu/peak_loops.h"
#include "cpu/read_probe.h"

namespace billfish::cpu {
namespace {

constexpr int kRuns = 5;
constexpr int64_t kRounds = 8'000'000;  // 20 to 50 ms at 4 GHz: longer than a boost above the sustained clock lasts
constexpr int64_t kShortRounds = 300'000;

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Each thread times its own loop, so that a worker that begins late does not lower the sum.
double Rate(PeakLoop loop, int64_t rounds, int threads) {
  std::atomic<double> sum{0};
  RunOnThreads(threads, [&](int) {
    const double start = Seconds();
    const int operations = loop(rounds);
    sum += double(operations) * double(rounds) / (Seconds() - start);
  });
  return sum;
}

double Peak(PeakLoop loop, int threads) {
  double rates[kRuns];
  for (double& rate : rates) rate = Rate(loop, kRounds, threads);
  std::sort(rates, rates + kRuns);
  return rates[kRuns / 2];
}

#if defined(__x86_64__)
PeakLoop FmaLoop() {
  const Tier tier = DetectCpu().tier;
  return tier >= Tier::kAvx512 ? &avx512::FmaLoop : tier >= Tier::kAvx2 ? &avx2::FmaLoop : &scalar::FmaLoop;
}
PeakLoop DotLoop(PeakLoop loop) { return DetectCpu().tier >= Tier::kAvx512Bf16 ? loop : FmaLoop(); }
#else
PeakLoop FmaLoop() { return &scalar::FmaLoop; }
#endif

}  // namespace

double MeasureReadBandwidth(int threads) {
  Result<ReadProbe> probe = ReadProbe::Create(threads, size_t{128} << 20);
  if (!probe) return 0;
  double best = 0;
  for (int run = 0; run < 2 * ReadProbe::kPasses; ++run) best = std::max(best, probe->Measure());
  return best;
}

#if defined(__x86_64__)
double MeasureBf16DotPeak(int threads) { return Peak(DotLoop(&avx512bf16::Bf16Loop), threads); }
double MeasureInt8DotPeak(int threads) { return Peak(DotLoop(&avx512bf16::Int8Loop), threads); }
double Bf16DotPeakNow(int threads) { return Rate(DotLoop(&avx512bf16::Bf16Loop), kShortRounds, threads); }
double Int8DotPeakNow(int threads) { return Rate(DotLoop(&avx512bf16::Int8Loop), kShortRounds, threads); }
#else
double MeasureBf16DotPeak(int threads) { return Peak(FmaLoop(), threads); }
double MeasureInt8DotPeak(int threads) { return Peak(FmaLoop(), threads); }
double Bf16DotPeakNow(int threads) { return Rate(FmaLoop(), kShortRounds, threads); }
double Int8DotPeakNow(int threads) { return Rate(FmaLoop(), kShortRounds, threads); }
#endif
double MeasureFp32FmaPeak(int threads) { return Peak(FmaLoop(), threads); }
double Fp32FmaPeakNow(int threads) { return Rate(FmaLoop(), kShortRounds, threads); }

}  // namespace billfish::cpu
