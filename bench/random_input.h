// Activations and choices of experts with random contents.
#pragma once

#include <cstdint>
#include <vector>

#include "billfish/tensor.h"

namespace billfish::bench {

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
