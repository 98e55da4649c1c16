#include "random_input.h"

#include <cstring>
#include <numeric>
#include <random>

namespace billfish::bench {
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
