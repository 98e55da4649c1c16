// Validation of what a model's configuration says about routing and activation: nothing is filled in silently.
#include <fmt/format.h>

#include <cmath>

#include "billfish/moe.h"

namespace billfish {
namespace {

Status Invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Status RequirePositive(const char* field, float value, const char* kind) {
  if (std::isfinite(value) && value > 0) return OkStatus();
  return Invalid(fmt::format("activation {} needs {} > 0 and it is {}; take it from the model's configuration", kind, field, value));
}

Status RefuseSet(const char* field, float value, const char* kind) {
  if (value == 0) return OkStatus();
  return Invalid(fmt::format("activation {} has no {} and it is {}; leave it 0 or choose the kind that reads it", kind, field, value));
}

}  // namespace

Status Activation::Validate() const {
  const auto all = [](std::initializer_list<Status> checks) {
    for (const Status& check : checks) {
      if (!check.ok()) return check;
    }
    return OkStatus();
  };
  const auto plain = [&](const char* name) {
    return all({RefuseSet("limit", limit, name), RefuseSet("alpha", alpha, name), RefuseSet("beta", beta, name)});
  };
  switch (kind) {
    case Kind::kSwiglu:
      return plain("swiglu");
    case Kind::kSwigluClamped:
      return all({RequirePositive("limit", limit, "clamped swiglu"), RefuseSet("alpha", alpha, "clamped swiglu"),
                  RefuseSet("beta", beta, "clamped swiglu")});
    case Kind::kSwigluOai:
      if (!std::isfinite(beta)) return Invalid(fmt::format("activation gpt-oss swiglu needs a finite beta and it is {}", beta));
      return all({RequirePositive("limit", limit, "gpt-oss swiglu"), RequirePositive("alpha", alpha, "gpt-oss swiglu")});
    case Kind::kGegluTanh:
      return plain("tanh geglu");
    case Kind::kSilu:
      return plain("silu");
    case Kind::kRelu2:
      return plain("relu2");
  }
  return Invalid(fmt::format("{} is no kind of activation", static_cast<int>(kind)));
}

Status RouterRule::Validate() const {
  if (static_cast<uint8_t>(score) > static_cast<uint8_t>(Score::kSqrtSoftplus)) {
    return Invalid(fmt::format("{} is no kind of router score", static_cast<int>(score)));
  }
  if (E < 1 || E > INT32_MAX) return Invalid(fmt::format("the router has E = {} experts; give at least 1", E));
  if (top_k < 1 || top_k > E) return Invalid(fmt::format("the router chooses top_k = {} of {} experts; give 1..{}", top_k, E, E));
  if (!std::isfinite(routed_scaling)) return Invalid(fmt::format("routed_scaling is {}; give a finite number", routed_scaling));
  if (!correction.empty() && static_cast<int64_t>(correction.size()) != E) {
    return Invalid(fmt::format("the correction has {} entries for {} experts; give {} or none", correction.size(), E, E));
  }
  for (size_t e = 0; e < correction.size(); ++e) {
    if (!std::isfinite(correction[e]))
      return Invalid(fmt::format("the correction of expert {} is {}; give a finite number", e, correction[e]));
  }
  if (n_group < 1 || E % n_group != 0) {
    return Invalid(fmt::format("n_group = {} does not cut {} experts into equal groups; give a divisor", n_group, E));
  }
  if (topk_group < 1 || topk_group > n_group)
    return Invalid(fmt::format("topk_group = {} of {} groups; give 1..{}", topk_group, n_group, n_group));
  if (top_k > topk_group * (E / n_group)) {
    return Invalid(fmt::format("top_k = {} experts cannot come from topk_group = {} groups of {}", top_k, topk_group, E / n_group));
  }
  if (hash_table.empty()) return OkStatus();
  if (static_cast<int64_t>(hash_table.size()) % top_k != 0) {
    return Invalid(fmt::format("the hash table has {} entries; give top_k = {} for each token id", hash_table.size(), top_k));
  }
  if (n_group > 1) return Invalid("hash routing fixes the experts, so groups mean nothing; give n_group = 1");
  for (size_t i = 0; i < hash_table.size(); ++i) {
    if (hash_table[i] < 0 || hash_table[i] >= E) {
      return Invalid(fmt::format("the hash table sends token id {} to expert {}; experts are 0..{}", static_cast<int64_t>(i) / top_k,
                                 hash_table[i], E - 1));
    }
  }
  return OkStatus();
}

}  // namespace billfish
