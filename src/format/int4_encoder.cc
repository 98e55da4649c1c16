#include <algorithm>
#include <cmath>

#include "format/group_encoder.h"
#include "format/scale_codec.h"

namespace billfish::format {
namespace {

// The range is shrunk to these fractions of the extremes: clipping a lone outlier makes the steps between all others finer.
constexpr float kShrink[] = {1.0f, 0.96f, 0.92f, 0.88f, 0.84f, 0.80f, 0.76f, 0.72f, 0.68f, 0.64f};
constexpr int kRefinements = 2;

// Sums run in this many fixed lanes, so that the compiler may vectorise them without changing their order.
constexpr size_t kLanes = 16;

// Adding and subtracting it rounds a float below 2^22 to the nearest integer, ties to even.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

/// The code for value / scale + zero, a whole number 0..15.
inline float Quantum(float shifted) {
  const float above = shifted > 0.0f ? shifted : 0.0f;
  const float clamped = above < 15.0f ? above : 15.0f;
  return (clamped + kRounder) - kRounder;
}

// Folds the upper half of the lanes onto the lower half until four are left, then adds those in order.
double Total(float (&lanes)[kLanes]) {
  for (size_t width = kLanes / 2; width >= 4; width /= 2) {
    for (size_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return static_cast<double>(lanes[0]) + lanes[1] + lanes[2] + lanes[3];
}

// Calls add(i, lane) for every i; i and the lane rise together.
template <class Add>
void ForEachLane(size_t count, Add add) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (size_t lane = 0; i + lane < count; ++lane) add(i + lane, lane);
}

// sum (value - code * scale)^2; summed in units of the scale, where nothing overflows.
double Error(std::span<const float> values, float scale, int zero_point) {
  const float inverse = 1.0f / scale;
  const auto zero = static_cast<float>(zero_point);
  float sums[kLanes] = {};
  ForEachLane(values.size(), [&](size_t i, size_t lane) {
    const float v = values[i] * inverse;
    const float difference = v - (Quantum(v + zero) - zero);
    sums[lane] += difference * difference;
  });
  return Total(sums) * scale * scale;
}

// The scale that fits the codes of `scale` best in the least-squares sense; `scale` itself where every code is zero.
float LeastSquaresScale(std::span<const float> values, float scale, int zero_point) {
  const float inverse = 1.0f / scale;
  const auto zero = static_cast<float>(zero_point);
  float products[kLanes] = {}, squares[kLanes] = {};
  ForEachLane(values.size(), [&](size_t i, size_t lane) {
    const float v = values[i] * inverse;
    const float q = Quantum(v + zero) - zero;
    products[lane] += v * q;
    squares[lane] += q * q;
  });
  const double product = Total(products), square = Total(squares);
  return square > 0 ? static_cast<float>(scale * (product / square)) : scale;
}

class Search {
 public:
  Search(std::span<const float> values, DType scale_dtype) : values_(values), scale_dtype_(scale_dtype) {}

  void Try(float wanted, int zero) {
    const float scale = RoundScale(scale_dtype_, wanted);
    if (!Usable(scale)) return;
    const double error = Error(values_, scale, zero);
    if (found_ && error >= best_.error) return;
    found_ = true;
    best_ = {scale, static_cast<uint8_t>(zero), error};
  }

  void Refine() {
    for (int i = 0; i < kRefinements && found_; ++i) Try(LeastSquaresScale(values_, best_.scale, best_.zero), best_.zero);
  }

  // A scale whose inverse overflows cannot be divided by; such groups hold nothing but subnormals and become zero.
  static bool Usable(float scale) { return scale > 0 && std::isfinite(1.0f / scale); }
  bool found() const { return found_; }
  const EncodedGroup& best() const { return best_; }

 private:
  std::span<const float> values_;
  DType scale_dtype_;
  bool found_ = false;
  EncodedGroup best_;
};

}  // namespace

EncodedGroup EncodeInt4(std::span<const float> values, ZeroPoint zero, DType scale_dtype, std::span<uint8_t> codes) {
  float low = 0, high = 0;
  for (float value : values) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  Search search(values, scale_dtype);
  if (zero == ZeroPoint::kNone) {
    // Codes reach from -8 to 7: the far side decides.
    const float full = std::max(high / 7.0f, -low / 8.0f);
    for (float shrink : kShrink) search.Try(full * shrink, 8);
  } else {
    // Halves first: high - low may overflow.
    const float full = (high / 2 - low / 2) / 7.5f;
    for (float shrink : kShrink) {
      const float scale = full * shrink;
      if (!Search::Usable(scale)) continue;
      const float exact_zero = std::clamp(-low * shrink / scale, 0.0f, 15.0f);
      const int below = static_cast<int>(exact_zero);
      search.Try(scale, below);
      if (static_cast<float>(below) < exact_zero) search.Try(scale, below + 1);
    }
  }
  search.Refine();
  EncodedGroup best = search.best();
  if (!search.found()) {
    // Nothing but zeros (or less than the scale dtype can tell from zero).
    best.scale = 1.0f;
    best.zero = 8;
    for (float value : values) best.error += static_cast<double>(value) * value;
    std::fill(codes.begin(), codes.end(), uint8_t{8});
    return best;
  }
  const float inverse = 1.0f / best.scale;
  for (size_t i = 0; i < values.size(); ++i) codes[i] = static_cast<uint8_t>(Quantum(values[i] * inverse + static_cast<float>(best.zero)));
  return best;
}

}  // namespace billfish::format
