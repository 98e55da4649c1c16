// Modules that differ in their layer and expert numbers alone, joined into one line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "billfish/checkpoint.h"

namespace billfish::cli {

struct ModuleGroup {
  std::string pattern;               ///< "model.layers.{0-5}.mlp.experts.{0-31}.up_proj"
  ModuleInfo first;                  ///< one of them; scheme, format and shape are those of all
  std::vector<std::string> members;  ///< names of all of them
  int64_t count = 0;                 ///< matrices
  int64_t experts = 1;               ///< distinct numbers after ".experts.", 1 if the names have none
  size_t bytes = 0;                  ///< of all of them
  double weights = 0;                ///< numbers in all of them
};

/// In the order in which the first member of each group appears. With `all`, every module is a group of its own.
std::vector<ModuleGroup> GroupModules(const std::vector<ModuleInfo>& modules, bool all);

}  // namespace billfish::cli
