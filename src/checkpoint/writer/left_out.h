// The names of modules that stay as they are, in few words: a model with 15,000 unquantised experts needs three patterns, not 15,000 names.
#pragma once

#include <string>
#include <vector>

namespace billfish::checkpoint {

struct LeftOut {
  std::string text;  ///< an exact module name, or a regular expression anchored at both ends
  bool pattern = false;
};

/// Names that differ only in their numbers become one pattern, unless a quantised module has that pattern too. Sorted.
std::vector<LeftOut> SummariseLeftOut(const std::vector<std::string>& left_out, const std::vector<std::string>& quantized);

/// The name as a regular expression that matches it alone.
std::string EscapePattern(const std::string& name);

}  // namespace billfish::checkpoint
