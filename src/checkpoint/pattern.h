// Regular expressions of quantisation configurations, as Python's re.match reads them: anchored at the start, not at the end.
#pragma once

#include <string>

#include "billfish/status.h"

namespace billfish::checkpoint {

/// kUnsupported for a pattern that PCRE2 refuses or that exceeds its match limits.
Result<bool> MatchesAtStart(const std::string& pattern, const std::string& text);

}  // namespace billfish::checkpoint
