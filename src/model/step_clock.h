// Where the time of a forward call goes: a clock that the call advances at the end of each of its parts.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "billfish/model.h"

namespace billfish::model {

/// What StepProfile tells apart.
enum class StepPart : uint8_t { kWeights, kAttention, kOther };

class StepClock {
 public:
  void Start() {
    us_ = {};
    last_ = Clock::now();
  }
  /// The time since the call before goes to `part`.
  void Lap(StepPart part) {
    const Clock::time_point now = Clock::now();
    us_[static_cast<size_t>(part)] += std::chrono::duration<double, std::micro>(now - last_).count();
    last_ = now;
  }
  double us(StepPart part) const { return us_[static_cast<size_t>(part)]; }

 private:
  using Clock = std::chrono::steady_clock;
  std::array<double, 3> us_{};
  Clock::time_point last_;
};

}  // namespace billfish::model
