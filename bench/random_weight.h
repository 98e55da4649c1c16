// Weights and activations of the right size and kind with random contents; quantising real ones would only cost time.
#pragma once

#include <cstdint>
#include <vector>

#include "billfish/scheme.h"
#include "billfish/weight.h"

namespace billfish::bench {

/// Random codes; scales near 2^-6, so that sums stay finite.
Result<PackedWeight> RandomWeight(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, uint64_t seed);

/// `count` numbers uniform in [-1, 1) as bf16 or f32 bytes.
std::vector<std::byte> RandomActivations(int64_t count, DType dtype, uint64_t seed);

/// For each of T tokens top_k different experts out of E, sorted into groups: what GroupedLinear::Forward reads.
struct RandomGroups {
  std::vector<int64_t> offsets;  ///< E + 1
  std::vector<int32_t> gather;   ///< token of each row
  std::vector<int32_t> ids;      ///< [T, top_k]
  int64_t experts_hit = 0;
};
RandomGroups MakeGroups(int64_t T, int64_t E, int64_t top_k, uint64_t seed);

}  // namespace billfish::bench
