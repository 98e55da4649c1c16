// Which tensors of a file belong to which module, and what each is for. Every parameter name that billfish knows stands in one table.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/checkpoint.h"

namespace billfish::checkpoint {

enum class Role : uint8_t {
  kWeight,         ///< numbers or codes, one module's main tensor
  kPackedWeight,   ///< compressed-tensors weight_packed
  kGptqWeight,     ///< qweight of GPTQ and AWQ
  kBlocks,         ///< gpt-oss FP4 blocks
  kScale,          ///< multiplies; per group, block, row or tensor
  kGlobalScale,    ///< ModelOpt weight_scale_2, multiplies
  kGlobalDivisor,  ///< compressed-tensors weight_global_scale, divides
  kZeros,          ///< packed zero points
  kGroupIndex,     ///< group of each k
  kShape,          ///< compressed-tensors weight_shape
  kInputScale,     ///< of activations: not used by 16-bit activations
  kUnsupported,    ///< its presence changes the result in a way billfish does not implement
};
inline constexpr int kRoleCount = 12;

/// The tensors of one module by role.
struct ModuleTensors {
  std::string name;
  std::array<const TensorInfo*, kRoleCount> by_role{};

  const TensorInfo* Find(Role role) const { return by_role[static_cast<size_t>(role)]; }
  bool Has(Role role) const { return Find(role) != nullptr; }
};

/// Groups tensors (sorted by name) into modules: those with a main tensor of rank 2 to 4. Where alternative names of one role are both
/// present, the one earlier in the table counts, for example weight_scale before weight_scale_inv.
std::map<std::string, ModuleTensors, std::less<>> GroupModules(const std::vector<TensorInfo>& tensors);

}  // namespace billfish::checkpoint
