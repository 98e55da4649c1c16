// Sorting the (token, expert) slots of a routing by expert, in caller-given memory.
#pragma once

#include <cstdint>
#include <span>

#include "billfish/moe.h"
#include "billfish/status.h"

namespace billfish::moe {

/// Slots sorted by expert, by token within one expert. A slot with id -1 has no place.
struct Slots {
  std::span<int64_t> offsets;    ///< [E+1] rows of expert e are offsets[e] .. offsets[e+1]
  std::span<int32_t> tokens;     ///< [T*top_k] token of each row; the first offsets[E] entries are set
  std::span<int32_t> positions;  ///< [T,top_k] row of each slot or -1
};

/// Counting sort of ids [T,top_k]. kInvalidArgument names the first id that is neither -1 nor an expert.
Status SortSlots(std::span<const int32_t> ids, int64_t top_k, Slots& slots);

}  // namespace billfish::moe
