#include <cstring>

#include "cpu/peak_loops.h"

namespace billfish::cpu::scalar {

int FmaLoop(int64_t count) {
  constexpr int kLanes = 24;
  volatile float one = 1.0f;
  const float w = one, x = one * 0x1p-30f;
  float sums[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) {
    for (float& sum : sums) sum += w * x + sum * 0.0f;
  }
  float all = 0;
  for (const float sum : sums) all += sum;
  one = all;
  return 2 * kLanes;
}

uint64_t ReadAll(const std::byte* p, size_t bytes) {
  uint64_t all = 0;
  for (size_t i = 0; i < bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, p + i, 8);
    all ^= word;
  }
  return all;
}

}  // namespace billfish::cpu::scalar
