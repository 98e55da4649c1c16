#include "model_cost.h"

#include <cmath>
#include <map>

namespace billfish::bench {

Cost CostOf(const Model& model, int64_t tokens) {
  Cost cost;
  for (const ModuleSummary& module : model.modules()) {
    const auto matrix = static_cast<double>(module.N) * static_cast<double>(module.K);
    const double used = module.E > 1 ? static_cast<double>(model.config().top_k) : 1.0;
    const double read = module.E > 1 ? 1.0 - std::pow(1.0 - used / static_cast<double>(module.E), static_cast<double>(tokens)) : 1.0;
    cost.bytes += read * static_cast<double>(module.weight_bytes);
    cost.operations += 2.0 * used * matrix * static_cast<double>(tokens);
  }
  return cost;
}

Heaviest FindHeaviest(const Model& model) {
  std::map<std::pair<std::string, std::string>, size_t> bytes;
  Heaviest heaviest;
  size_t most = 0;
  for (const ModuleSummary& module : model.modules()) {
    size_t& sum = bytes[{module.scheme, module.kernel}];
    sum += module.weight_bytes;
    heaviest.total_bytes += module.weight_bytes;
    if (sum <= most) continue;
    most = sum;
    heaviest.scheme = module.scheme;
    heaviest.kernel = module.kernel;
  }
  return heaviest;
}

}  // namespace billfish::bench
