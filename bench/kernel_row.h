// What a row says about its kernel before anything is timed.
#pragma once

#include <cstdint>
#include <string_view>

#include "cases.h"

namespace billfish::bench {

/// A row for M tokens of the case, timed with `kernel` on options.device; without times.
Row KernelRow(const KernelCase& kernel_case, const RunOptions& options, int64_t M, std::string_view kernel);

}  // namespace billfish::bench
