// Random numbers and weights for the tests; the same seed gives the same numbers everywhere.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "billfish/weight.h"
#include "core/float_formats.h"

namespace billfish::test {

/// Approximately Gaussian: a sum of twelve uniforms, so that no library's distribution is involved.
inline std::vector<float> Gaussian(size_t count, uint64_t seed, float scale = 1.0f) {
  std::mt19937_64 rng(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(rng() >> 11) * 0x1p-53;
    value = static_cast<float>(sum) * scale;
  }
  return values;
}

inline std::vector<uint16_t> ToBF16(const std::vector<float>& values) {
  std::vector<uint16_t> bits(values.size());
  for (size_t i = 0; i < values.size(); ++i) bits[i] = BF16FromF32(values[i]);
  return bits;
}

inline std::vector<float> RoundedToBF16(const std::vector<float>& values) {
  std::vector<float> rounded(values.size());
  for (size_t i = 0; i < values.size(); ++i) rounded[i] = F32FromBF16(BF16FromF32(values[i]));
  return rounded;
}

inline PackedWeight RandomWeight(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, uint64_t seed) {
  const std::vector<float> w = Gaussian(static_cast<size_t>(E * N * K), seed, 0.05f);
  auto packed = PackedWeight::Quantize(ConstTensorView(w.data(), DType::kF32, {E, N, K}), scheme);
  return packed ? std::move(*packed) : PackedWeight();
}

/// The same weight with the columns of every expert in a random order (act-order).
inline PackedWeight WithRandomPerm(const PackedWeight& weight, uint64_t seed) {
  std::mt19937_64 rng(seed);
  WeightParts parts = weight.parts();
  for (int64_t e = 0; e < weight.E(); ++e) {
    std::vector<int32_t> order(static_cast<size_t>(weight.K()));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng() % i]);
    parts.perm.insert(parts.perm.end(), order.begin(), order.end());
  }
  auto permuted = PackedWeight::FromParts(weight.scheme(), weight.E(), weight.N(), weight.K(), std::move(parts));
  return permuted ? std::move(*permuted) : PackedWeight();
}

}  // namespace billfish::test
