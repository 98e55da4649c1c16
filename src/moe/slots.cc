#include "moe/slots.h"

#include <fmt/format.h>

#include <algorithm>

namespace billfish::moe {

Status SortSlots(std::span<const int32_t> ids, int64_t top_k, Slots& slots) {
  const int64_t E = static_cast<int64_t>(slots.offsets.size()) - 1;
  // offsets[e + 1] counts, then becomes the end of expert e by a running sum, then the next free row of expert e, counted backwards so
  // that it ends at the first row and the sort stays stable.
  std::fill(slots.offsets.begin(), slots.offsets.end(), 0);
  for (size_t i = 0; i < ids.size(); ++i) {
    const int32_t id = ids[i];
    if (id == -1) continue;
    if (id < 0 || id >= E) {
      return {ErrorCode::kInvalidArgument,
              fmt::format("MoeLayer: slot {} of token {} goes to expert {}; give 0..{}, or -1 to skip the slot",
                          static_cast<int64_t>(i) % top_k, static_cast<int64_t>(i) / top_k, id, E - 1)};
    }
    ++slots.offsets[static_cast<size_t>(id)];
  }
  int64_t end = 0;
  for (int64_t e = 0; e < E; ++e) slots.offsets[static_cast<size_t>(e)] = end += slots.offsets[static_cast<size_t>(e)];
  slots.offsets[static_cast<size_t>(E)] = end;
  for (size_t i = ids.size(); i-- > 0;) {
    slots.positions[i] = -1;
    if (ids[i] < 0) continue;
    const int64_t row = --slots.offsets[static_cast<size_t>(ids[i])];
    slots.positions[i] = static_cast<int32_t>(row);
    slots.tokens[static_cast<size_t>(row)] = static_cast<int32_t>(static_cast<int64_t>(i) / top_k);
  }
  return OkStatus();
}

}  // namespace billfish::moe
