#include <algorithm>
#include <cmath>

#include "core/float_formats.h"
#include "format/group_encoder.h"
#include "format/scale_codec.h"

namespace billfish::format {
namespace {

// Stored E4M3 scales from two codes below amax / 6 to five above: five codes are nearly amax / 4, where the largest weight lands on 4
// and the gap between 4 and 6 is not used.
constexpr int kE4M3Below = 2, kE4M3Above = 5;
// Wider scales are tried at these multiples of amax / 6.
constexpr float kWideSteps[] = {1.0f, 0.875f, 0.9375f, 1.0625f, 1.125f, 1.25f, 1.375f, 1.5f};

// Sums run in this many fixed lanes, so that the compiler may vectorise them without changing their order.
constexpr size_t kLanes = 16;

/// Squared distance of v >= 0 to the nearest E2M1 value. Steps are 1/2 below 2, 1 below 4 and 2 up to 6; adding and subtracting
/// 1.5 * 2^23 steps rounds to a whole number of steps.
inline float SquaredDistance(float v) {
  constexpr float kRounder = 12582912.0f;
  const float clamped = v < kE2M1Max ? v : kE2M1Max;
  const float low = v < 2.0f ? 0.5f * kRounder : kRounder;
  const float rounder = v < 4.0f ? low : 2.0f * kRounder;
  const float difference = v - ((clamped + rounder) - rounder);
  return difference * difference;
}

double Error(std::span<const float> values, float scale) {
  const float inverse = 1.0f / scale;
  float sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += SquaredDistance(std::fabs(values[i + lane]) * inverse);
  }
  for (size_t lane = 0; i + lane < values.size(); ++lane) sums[lane] += SquaredDistance(std::fabs(values[i + lane]) * inverse);
  double error = 0;
  for (const float sum : sums) error += sum;
  return error * scale * scale;
}

class Search {
 public:
  explicit Search(std::span<const float> values) : values_(values) {}

  void Try(float scale) {
    if (!(scale > 0) || !std::isfinite(1.0f / scale)) return;
    const double error = Error(values_, scale);
    if (best_.scale > 0 && error >= best_.error) return;
    best_.scale = scale;
    best_.error = error;
  }

  bool found() const { return best_.scale > 0; }
  const EncodedGroup& best() const { return best_; }

 private:
  std::span<const float> values_;
  EncodedGroup best_;
};

}  // namespace

EncodedGroup EncodeE2M1(std::span<const float> values, DType scale_dtype, std::span<uint8_t> codes) {
  float amax = 0;
  for (float value : values) amax = std::max(amax, std::fabs(value));
  Search search(values);
  if (amax > 0 && scale_dtype == DType::kF8E8M0) {
    // 1 / 2^-127 is finite in fp32 and 6 * 2^127 is not, so exponents stop two below the top: bytes 0 .. 252.
    const int exponent = std::ilogb(amax) - 2;
    search.Try(F32FromE8M0(static_cast<uint8_t>(std::clamp(exponent + 127, 0, 252))));
    search.Try(F32FromE8M0(static_cast<uint8_t>(std::clamp(exponent + 128, 0, 252))));
  } else if (amax > 0 && scale_dtype == DType::kF8E4M3) {
    const int nearest = E4M3FromF32(amax / kE2M1Max);
    for (int code = nearest - kE4M3Below; code <= nearest + kE4M3Above; ++code) {
      if (code >= 1 && code <= 0x7E) search.Try(F32FromE4M3(static_cast<uint8_t>(code)));
    }
  } else if (amax > 0) {
    for (float step : kWideSteps) search.Try(RoundScale(scale_dtype, amax / kE2M1Max * step));
  }
  EncodedGroup best = search.best();
  if (!search.found()) {
    best.scale = 1.0f;
    best.error = 0;
    for (float value : values) best.error += static_cast<double>(value) * value;
    std::fill(codes.begin(), codes.end(), uint8_t{0});
    return best;
  }
  const float inverse = 1.0f / best.scale;
  for (size_t i = 0; i < values.size(); ++i) codes[i] = E2M1FromF32(values[i] * inverse);
  return best;
}

}  // namespace billfish::format
