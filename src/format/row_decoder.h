// The formula of scheme.h for one row: codes -> fp32 values.
#pragma once

#include <cstdint>
#include <span>

#include "billfish/weight.h"

namespace billfish::format {

/// out[j] = w[e,n,j] in STORED k order (perm not undone), at most two fp32 products each. out.size() = K.
void DecodeRow(const PackedWeight& weight, int64_t e, int64_t n, std::span<float> out);

/// Code j of a row as it is stored (0..15, 0..255, or 16 / 32 bits).
uint32_t LoadCode(CodeBook codes, const std::byte* row, int64_t j);

/// The number a code stands for before scale and zero point; kInt4 gives 0..15.
float CodeValue(CodeBook codes, uint32_t code);

}  // namespace billfish::format
