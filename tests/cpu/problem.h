// Random weights in the plain form, and their product in fp64 straight from the formula of scheme.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "billfish/weight.h"
#include "core/float_formats.h"

namespace billfish::cpu::test {

inline std::vector<std::byte> RandomBytes(size_t count, std::mt19937_64& rng) {
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = std::byte(rng());
  return bytes;
}

template <class T>
void Put(std::vector<std::byte>& bytes, size_t index, T value) {
  std::memcpy(bytes.data() + index * sizeof(T), &value, sizeof(T));
}
template <class T>
T Get(const Bytes& bytes, int64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * int64_t{sizeof(T)}, sizeof(T));
  return value;
}

inline int64_t Blocks(int64_t count, int64_t size) { return size == 0 ? 1 : (count + size - 1) / size; }

struct WeightOptions {
  bool perm = false;
  bool wide_exponents = false;  ///< E8M0 from 2^-127 to 2^122 (6 times more would not be finite) instead of 2^-8 .. 2^3
  bool every_e4m3 = false;      ///< all 127 magnitudes, subnormals and zero included
};

inline PackedWeight RandomWeight(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, uint64_t seed, WeightOptions options = {}) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  WeightParts parts;
  const int bits = CodeBits(scheme.codes);
  const size_t elements = size_t(E * N * K);
  if (bits == 4) {
    std::vector<std::byte> codes = RandomBytes(size_t(E * N * ((K + 1) / 2)), rng);
    if (K % 2 == 1) {
      for (size_t row = 1; row <= size_t(E * N); ++row) codes[row * size_t((K + 1) / 2) - 1] &= std::byte{15};
    }
    parts.codes = Bytes::Own(std::move(codes));
  } else if (bits == 8) {
    std::vector<std::byte> codes(elements);
    for (std::byte& b : codes) {
      do b = std::byte(rng());
      while (IsE4M3Nan(uint8_t(b)));
    }
    parts.codes = Bytes::Own(std::move(codes));
  } else {
    std::vector<std::byte> codes(elements * size_t(bits) / 8);
    for (size_t i = 0; i < elements; ++i) {
      const float v = uniform(rng);
      if (scheme.codes == CodeBook::kBF16)
        Put(codes, i, BF16FromF32(v));
      else if (scheme.codes == CodeBook::kF16)
        Put(codes, i, F16FromF32(v));
      else
        Put(codes, i, v);
    }
    parts.codes = Bytes::Own(std::move(codes));
  }
  if (scheme.has_scale()) {
    const size_t count = size_t(E * Blocks(N, scheme.group_rows) * Blocks(K, scheme.group));
    std::vector<std::byte> scales(count * size_t(DTypeBits(scheme.scale)) / 8);
    for (size_t i = 0; i < count; ++i) {
      const float v = std::exp2(3.0f * uniform(rng)) * 0.05f;
      switch (scheme.scale) {
        case DType::kF8E8M0:
          Put(scales, i, uint8_t(options.wide_exponents ? rng() % 250 : 119 + rng() % 12));
          break;
        case DType::kF8E4M3:
          Put(scales, i, uint8_t(options.every_e4m3 ? rng() % 127 : 32 + rng() % 64));
          break;
        case DType::kBF16:
          Put(scales, i, BF16FromF32(v));
          break;
        case DType::kF16:
          Put(scales, i, F16FromF32(v));
          break;
        default:
          Put(scales, i, v);
          break;
      }
    }
    parts.scales = Bytes::Own(std::move(scales));
    if (scheme.zero == ZeroPoint::kPerGroup) {
      std::vector<std::byte> zeros(count);
      for (std::byte& z : zeros) z = std::byte(rng() % 17);
      parts.zeros = Bytes::Own(std::move(zeros));
    }
  }
  if (scheme.row_scale) {
    for (int64_t i = 0; i < E * N; ++i) parts.row_scale.push_back(0.1f + std::abs(uniform(rng)));
  }
  if (options.perm) {
    for (int64_t e = 0; e < E; ++e) {
      std::vector<int32_t> order(size_t(K), 0);
      for (size_t i = 0; i < order.size(); ++i) order[i] = int32_t(i);
      std::shuffle(order.begin(), order.end(), rng);
      parts.perm.insert(parts.perm.end(), order.begin(), order.end());
    }
  }
  Result<PackedWeight> weight = PackedWeight::FromParts(scheme, E, N, K, std::move(parts));
  return weight.has_value() ? *weight : PackedWeight();
}

/// Column j of the stored weight, in fp64.
inline double WeightAt(const PackedWeight& w, int64_t e, int64_t n, int64_t j) {
  const QuantScheme& s = w.scheme();
  const int64_t row = e * w.N() + n;
  const int64_t scale_row = s.group_rows == 0 ? 0 : n / s.group_rows, g = s.group == 0 ? 0 : j / s.group;
  const int64_t index = (e * Blocks(w.N(), s.group_rows) + scale_row) * Blocks(w.K(), s.group) + g;
  double scale = 1.0;
  if (s.has_scale()) {
    switch (s.scale) {
      case DType::kF8E8M0:
        scale = std::ldexp(1.0, int(Get<uint8_t>(w.parts().scales, index)) - 127);
        break;
      case DType::kF8E4M3:
        scale = double(F32FromE4M3(Get<uint8_t>(w.parts().scales, index)));
        break;
      case DType::kBF16:
        scale = double(F32FromBF16(Get<uint16_t>(w.parts().scales, index)));
        break;
      case DType::kF16:
        scale = double(F32FromF16(Get<uint16_t>(w.parts().scales, index)));
        break;
      default:
        scale = double(Get<float>(w.parts().scales, index));
        break;
    }
  }
  if (s.row_scale) scale *= double(w.parts().row_scale[size_t(row)]);
  switch (s.codes) {
    case CodeBook::kInt4:
    case CodeBook::kE2M1: {
      const int nibble = (int(Get<uint8_t>(w.parts().codes, row * ((w.K() + 1) / 2) + j / 2)) >> (j % 2 * 4)) & 15;
      if (s.codes == CodeBook::kE2M1) return double(kE2M1Values[size_t(nibble)]) * scale;
      const int zero = s.zero == ZeroPoint::kPerGroup ? int(Get<uint8_t>(w.parts().zeros, index)) : 8;
      return double(nibble - zero) * scale;
    }
    case CodeBook::kE4M3:
      return double(F32FromE4M3(Get<uint8_t>(w.parts().codes, row * w.K() + j))) * scale;
    case CodeBook::kBF16:
      return double(F32FromBF16(Get<uint16_t>(w.parts().codes, row * w.K() + j)));
    case CodeBook::kF16:
      return double(F32FromF16(Get<uint16_t>(w.parts().codes, row * w.K() + j)));
    case CodeBook::kF32:
      return double(Get<float>(w.parts().codes, row * w.K() + j));
  }
  return 0;
}

struct Expected {
  double value;
  double magnitude;  ///< sum |w| |x|, what rounding errors are proportional to
};

inline Expected DotRow(const PackedWeight& w, int64_t e, int64_t n, std::span<const float> x) {
  Expected sum{0, 0};
  const int32_t* perm = w.parts().perm.empty() ? nullptr : w.parts().perm.data() + e * w.K();
  for (int64_t j = 0; j < w.K(); ++j) {
    const double product = WeightAt(w, e, n, j) * double(x[size_t(perm == nullptr ? j : perm[j])]);
    sum.value += product;
    sum.magnitude += std::abs(product);
  }
  return sum;
}

}  // namespace billfish::cpu::test
