// Where the cuts of a split fall, for each behavior.
#include "tokenizer/pre_tokenizer.h"

namespace billfish::tokenizer {
namespace {

struct Part {
  Range range;
  bool separator;
};

/// Separators and what lies between them, covering [0, length).
std::vector<Part> AllParts(size_t length, const std::vector<Range>& matches, bool invert) {
  std::vector<Part> parts;
  parts.reserve(2 * matches.size() + 1);
  size_t behind = 0;
  for (const Range& match : matches) {
    if (match.begin != behind) parts.push_back({{behind, match.begin}, invert});
    parts.push_back({match, !invert});
    behind = match.end;
  }
  if (behind != length) parts.push_back({{behind, length}, invert});
  return parts;
}

}  // namespace

void SplitAt(size_t length, const std::vector<Range>& matches, SplitBehavior behavior, bool invert, size_t offset,
             std::vector<Range>& out) {
  const std::vector<Part> parts = AllParts(length, matches, invert);
  const auto emit = [&](size_t begin, size_t end) {
    if (begin < end) out.push_back({begin + offset, end + offset});
  };
  // A part joins the one before it; which parts do is all that the behaviors differ in.
  const auto joins = [&](size_t i) {
    const bool separator = parts[i].separator;
    switch (behavior) {
      case SplitBehavior::kContiguous:
        return separator == parts[i - 1].separator;
      case SplitBehavior::kMergedWithPrevious:
        return separator && !parts[i - 1].separator;
      case SplitBehavior::kMergedWithNext:
        return !separator && parts[i - 1].separator;
      default:
        return false;
    }
  };
  for (size_t i = 0; i < parts.size();) {
    size_t next = i + 1;
    while (next < parts.size() && joins(next)) ++next;
    if (behavior != SplitBehavior::kRemoved || !parts[i].separator) emit(parts[i].range.begin, parts[next - 1].range.end);
    i = next;
  }
}

}  // namespace billfish::tokenizer
