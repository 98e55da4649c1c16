#include "billfish/limits.h"

#include <fmt/format.h>

#include <utility>

#include "core/status_macros.h"
#include "cpu/limits.h"
#include "cpu/read_probe.h"

namespace billfish {

struct BandwidthProbe::Impl {
  cpu::ReadProbe probe;
};

BandwidthProbe::BandwidthProbe() = default;
BandwidthProbe::~BandwidthProbe() = default;
BandwidthProbe::BandwidthProbe(BandwidthProbe&&) noexcept = default;
BandwidthProbe& BandwidthProbe::operator=(BandwidthProbe&&) noexcept = default;

Limits MeasureLimits(int threads) {
  return {cpu::MeasureReadBandwidth(threads), cpu::MeasureBf16DotPeak(threads), cpu::MeasureInt8DotPeak(threads),
          cpu::MeasureFp32FmaPeak(threads)};
}

double MeasurePeakNow(Arithmetic arithmetic, int threads) {
  switch (arithmetic) {
    case Arithmetic::kBf16Dot:
      return cpu::Bf16DotPeakNow(threads);
    case Arithmetic::kInt8Dot:
      return cpu::Int8DotPeakNow(threads);
    case Arithmetic::kFp32Fma:
      break;
  }
  return cpu::Fp32FmaPeakNow(threads);
}

Result<BandwidthProbe> BandwidthProbe::Create(int threads) {
  if (threads < 1) return Status(ErrorCode::kInvalidArgument, fmt::format("a bandwidth probe needs at least one thread, not {}", threads));
  constexpr size_t kBytes = size_t{128} << 20;
  BILLFISH_ASSIGN_OR_RETURN(cpu::ReadProbe inner, cpu::ReadProbe::Create(threads, kBytes));
  BandwidthProbe probe;
  probe.impl_ = std::make_unique<Impl>(Impl{std::move(inner)});
  return probe;
}

double BandwidthProbe::Measure() const { return impl_->probe.Measure(); }

}  // namespace billfish
