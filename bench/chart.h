// Pictures of a report.
#pragma once

#include <string>

#include "row.h"

namespace billfish::bench {

/// Log-log: operations per byte of weight to the right, speed upwards, under the roof of the limits measured in the same run. Colours are
/// schemes, shapes are matrices, hollow marks are mode fast. kInvalidArgument without rows.
Result<std::string> DrawRoofline(const Report& report);

/// One panel per matrix and mode, one group of bars per M, one bar per scheme: the fraction of the limit. kInvalidArgument without rows.
Result<std::string> DrawBars(const Report& report);

}  // namespace billfish::bench
