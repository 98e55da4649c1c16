// Configurations of well-known models, for timing them with random weights.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"

namespace billfish::bench {

/// "qwen3-30b-a3b", ...: every name that ShapeConfig accepts.
std::vector<std::string> ModelShapeNames();

/// Text of a config.json of that shape, with its first `layers` layers only unless that is 0. kInvalidArgument: an unknown name (lists
/// the known ones), or more layers than the model has.
Result<std::string> ShapeConfig(std::string_view name, int64_t layers);

}  // namespace billfish::bench
