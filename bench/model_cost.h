// What one forward call of a model must read and compute, for the rows of `bench model`.
#pragma once

#include <string>

#include "billfish/model.h"
#include "timing.h"

namespace billfish::bench {

/// Of one forward call of `tokens` tokens, each of which chooses its experts at random: an expert is read once for all that chose it.
Cost CostOf(const Model& model, int64_t tokens);

/// The pair of scheme and kernel that holds most bytes.
struct Heaviest {
  std::string scheme, kernel;
  size_t total_bytes = 0;  ///< of all matrices
};
Heaviest FindHeaviest(const Model& model);

}  // namespace billfish::bench
