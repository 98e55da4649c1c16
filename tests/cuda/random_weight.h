// Weights of any scheme with random codes and scales.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "billfish/weight.h"
#include "core/float_formats.h"

namespace billfish::cuda {

inline int64_t Blocks(int64_t count, int64_t size) { return size == 0 ? 1 : (count + size - 1) / size; }

/// Every code, moderate scales of either sign; E8M0 codes within 20 of each other.
inline WeightParts RandomParts(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, uint32_t seed) {
  std::mt19937 random(seed);
  const int bits = CodeBits(scheme.codes);
  const int64_t row_bytes = (K * bits + 7) / 8;
  std::vector<uint8_t> codes(static_cast<size_t>(E * N * row_bytes));
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = static_cast<uint8_t>(random());
    if (scheme.codes == CodeBook::kE4M3 && IsE4M3Nan(codes[i])) codes[i] = 0x7e;
    if ((scheme.codes == CodeBook::kBF16 || scheme.codes == CodeBook::kF16) && i % 2 == 1) codes[i] &= 0xbb;  // finite
    if (bits == 4 && K % 2 == 1 && static_cast<int64_t>(i) % row_bytes == row_bytes - 1) codes[i] &= 15;
  }
  WeightParts parts;
  parts.codes = Bytes::Own(std::move(codes));
  if (!scheme.has_scale()) return parts;
  const auto scales = static_cast<size_t>(E * Blocks(N, scheme.group_rows) * Blocks(K, scheme.group));
  const auto size = static_cast<size_t>(DTypeBits(scheme.scale) / 8);
  std::vector<uint8_t> bytes(scales * size);
  for (size_t i = 0; i < scales; ++i) {
    const float value = std::ldexp(static_cast<float>(static_cast<int>(random() % 4001) - 2000), -12);
    const auto bf16 = BF16FromF32(value), f16 = F16FromF32(value);
    const auto e8m0 = static_cast<uint8_t>(110 + random() % 20), e4m3 = E4M3FromF32(value);
    const void* from = scheme.scale == DType::kF8E8M0   ? static_cast<const void*>(&e8m0)
                       : scheme.scale == DType::kF8E4M3 ? static_cast<const void*>(&e4m3)
                       : scheme.scale == DType::kBF16   ? static_cast<const void*>(&bf16)
                       : scheme.scale == DType::kF16    ? static_cast<const void*>(&f16)
                                                        : static_cast<const void*>(&value);
    std::memcpy(bytes.data() + i * size, from, size);
  }
  parts.scales = Bytes::Own(std::move(bytes));
  if (scheme.zero == ZeroPoint::kPerGroup) {
    std::vector<uint8_t> zeros(scales);
    for (auto& zero : zeros) zero = static_cast<uint8_t>(random() % 17);
    parts.zeros = Bytes::Own(std::move(zeros));
  }
  if (scheme.row_scale) {
    for (int64_t i = 0; i < E * N; ++i) parts.row_scale.push_back(std::ldexp(static_cast<float>(random() % 1000 + 1), -10));
  }
  return parts;
}

inline PackedWeight MakeWeight(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, WeightParts parts) {
  auto weight = PackedWeight::FromParts(scheme, E, N, K, std::move(parts));
  EXPECT_TRUE(weight.has_value()) << weight.status().message();
  return weight ? std::move(weight).value() : PackedWeight();
}

inline PackedWeight RandomWeight(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, uint32_t seed = 1) {
  return MakeWeight(scheme, E, N, K, RandomParts(scheme, E, N, K, seed));
}

}  // namespace billfish::cuda
