#include "random_weight.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

namespace billfish::bench {
namespace {

/// Bytes whose 16-bit units are small normal bf16 and f16 numbers, or any bytes for codes of up to eight bits.
std::vector<std::byte> Codes(size_t bytes, CodeBook codes, std::mt19937_64& rng) {
  std::vector<std::byte> data(bytes);
  const int bits = CodeBits(codes);
  for (size_t i = 0; i < bytes; i += 8) {
    uint64_t word = rng();
    if (codes == CodeBook::kE4M3) word &= 0xB7B7B7B7B7B7B7B7ULL;                    // below 1, never NaN
    if (bits == 16) word = (word & 0x803F803F803F803FULL) | 0x3C003C003C003C00ULL;  // bf16 near 2^-7, f16 near 1
    if (bits == 32) word = (word & 0x807FFFFF807FFFFFULL) | 0x3C0000003C000000ULL;  // f32 near 2^-7
    std::memcpy(data.data() + i, &word, std::min<size_t>(8, bytes - i));
  }
  return data;
}

std::vector<std::byte> Scales(int64_t count, DType dtype, std::mt19937_64& rng) {
  const auto size = static_cast<size_t>(DTypeBits(dtype) / 8);
  std::vector<std::byte> data(static_cast<size_t>(count) * size);
  for (int64_t i = 0; i < count; ++i) {
    const auto noise = static_cast<uint32_t>(rng() % 8);
    uint32_t value = 0;
    switch (dtype) {
      case DType::kF8E8M0:
        value = 118 + noise;
        break;
      case DType::kF8E4M3:
        value = 8 + noise;
        break;
      case DType::kBF16:
        value = 0x3C80 + noise;
        break;
      case DType::kF16:
        value = 0x2400 + noise;
        break;
      default:
        value = 0x3C800000 + noise;
        break;
    }
    std::memcpy(data.data() + static_cast<size_t>(i) * size, &value, size);
  }
  return data;
}

int64_t Groups(int64_t count, int64_t group) { return group == 0 ? 1 : (count + group - 1) / group; }

}  // namespace

Result<PackedWeight> RandomWeight(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, uint64_t seed) {
  std::mt19937_64 rng(seed);
  WeightParts parts;
  const int64_t row_bytes = (K * CodeBits(scheme.codes) + 7) / 8;
  std::vector<std::byte> codes = Codes(static_cast<size_t>(E * N * row_bytes), scheme.codes, rng);
  if (CodeBits(scheme.codes) == 4 && K % 2 == 1) {
    for (int64_t row = 1; row <= E * N; ++row) codes[static_cast<size_t>(row * row_bytes - 1)] &= std::byte{0x0F};
  }
  parts.codes = Bytes::Own(std::move(codes));
  if (scheme.has_scale()) {
    const int64_t count = E * Groups(N, scheme.group_rows) * Groups(K, scheme.group);
    parts.scales = Bytes::Own(Scales(count, scheme.scale, rng));
    if (scheme.zero == ZeroPoint::kPerGroup) {
      std::vector<std::byte> zeros(static_cast<size_t>(count));
      for (std::byte& zero : zeros) zero = std::byte(rng() % 16);
      parts.zeros = Bytes::Own(std::move(zeros));
    }
  }
  if (scheme.row_scale) parts.row_scale.assign(static_cast<size_t>(E * N), 1.0F);
  return PackedWeight::FromParts(scheme, E, N, K, std::move(parts));
}

std::vector<std::byte> RandomActivations(int64_t count, DType dtype, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  const size_t size = dtype == DType::kBF16 ? 2 : 4;
  std::vector<std::byte> data(static_cast<size_t>(count) * size);
  for (int64_t i = 0; i < count; ++i) {
    const float value = uniform(rng);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (size == 2) bits >>= 16;
    std::memcpy(data.data() + static_cast<size_t>(i) * size, &bits, size);
  }
  return data;
}

RandomGroups MakeGroups(int64_t T, int64_t E, int64_t top_k, uint64_t seed) {
  std::mt19937_64 rng(seed);
  RandomGroups groups;
  std::vector<int32_t> experts(static_cast<size_t>(E));
  std::iota(experts.begin(), experts.end(), 0);
  std::vector<std::vector<int32_t>> tokens(static_cast<size_t>(E));
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t j = 0; j < top_k; ++j) {
      std::swap(experts[static_cast<size_t>(j)],
                experts[static_cast<size_t>(j + static_cast<int64_t>(rng() % static_cast<uint64_t>(E - j)))]);
      groups.ids.push_back(experts[static_cast<size_t>(j)]);
      tokens[static_cast<size_t>(groups.ids.back())].push_back(static_cast<int32_t>(t));
    }
  }
  groups.offsets.push_back(0);
  for (const std::vector<int32_t>& rows : tokens) {
    groups.experts_hit += rows.empty() ? 0 : 1;
    groups.gather.insert(groups.gather.end(), rows.begin(), rows.end());
    groups.offsets.push_back(static_cast<int64_t>(groups.gather.size()));
  }
  return groups;
}

}  // namespace billfish::bench
