// Limits: what this machine can do at most, measured, so that a kernel's speed can be stated as a fraction of it.
#pragma once

#include <memory>

#include "billfish/status.h"

namespace billfish {

/// Operations count 2 per multiply-add.
struct Limits {
  double read_bandwidth = 0;  ///< bytes per second, sequential read of 128 MiB on 2 MiB pages that no cache holds, one stream per thread
  double bf16_dot = 0;        ///< operations per second of vdpbf16ps; the fp32 peak where the processor lacks it
  double int8_dot = 0;        ///< operations per second of vpdpbusd; the fp32 peak where the processor lacks it
  double fp32_fma = 0;        ///< operations per second of fp32 multiply-adds in the widest form
};

/// Takes about a second. threads >= 1.
Limits MeasureLimits(int threads);

/// What a kernel multiplies with.
enum class Arithmetic { kBf16Dot, kInt8Dot, kFp32Fma };

/// Operations per second of `arithmetic` right now, measured for about a millisecond: for use around every timed run, because clocks change
/// too. threads >= 1.
double MeasurePeakNow(Arithmetic arithmetic, int threads);

/// The read bandwidth right now: a single pass over 128 of 512 MiB in turn, for use around every timed run, because the bandwidth of a
/// shared machine changes by the minute. A pass also leaves nothing else in the caches.
class BandwidthProbe {
 public:
  BandwidthProbe();
  ~BandwidthProbe();
  BandwidthProbe(BandwidthProbe&&) noexcept;
  BandwidthProbe& operator=(BandwidthProbe&&) noexcept;

  /// kInvalidArgument (threads < 1), kOutOfMemory.
  static Result<BandwidthProbe> Create(int threads);
  /// Bytes per second. Precondition: made by Create.
  double Measure() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace billfish
