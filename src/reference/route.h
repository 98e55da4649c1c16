// The definition of RouteTopK for one token, in fp64.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "billfish/moe.h"

namespace billfish::reference {

struct Route {
  std::vector<int32_t> ids;     ///< [top_k]
  std::vector<double> weights;  ///< [top_k]
};

/// logits: [E]. token_id is read only for hash routing. Precondition: rule.Validate() is ok.
Route RouteToken(std::span<const double> logits, const RouterRule& rule, int32_t token_id);

}  // namespace billfish::reference
