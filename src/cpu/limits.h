// What this machine can do at most, measured, so that a benchmark can state its rows as fractions.
#pragma once

namespace billfish::cpu {

/// Bytes per second of a sequential read of memory that no cache holds, on 2 MiB pages, one stream per thread; the best of several passes.
double MeasureReadBandwidth(int threads);

/// Operations (2 per multiply-add) per second of independent multiply-adds in registers, in the widest form this process may use:
/// vdpbf16ps, vpdpbusd, fp32 FMA. The median of runs long enough to leave short clock
/// boosts behind. Where the dot instructions do not exist these return the fp32 peak.
double MeasureBf16DotPeak(int threads);
double MeasureInt8DotPeak(int threads);
double MeasureFp32FmaPeak(int threads);

/// The same from one run of about a millisecond.
double Bf16DotPeakNow(int threads);
double Int8DotPeakNow(int threads);
double Fp32FmaPeakNow(int threads);

}  // namespace billfish::cpu
