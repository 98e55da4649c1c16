// Choosing the scale, the zero point and the 4-bit codes of one group of weights so that the squared error is small.
//
// Every search tries its candidates in a fixed order and takes a later one only if it is strictly better, so the result depends on
// the weights alone. Errors are measured against the scale as it will be stored, after rounding to its dtype.
#pragma once

#include <cstdint>
#include <span>

#include "billfish/scheme.h"

namespace billfish::format {

struct EncodedGroup {
  float scale = 0;   ///< a value that the scale dtype holds exactly
  uint8_t zero = 8;  ///< kInt4
  double error = 0;  ///< sum of squared differences
};

/// values: the group divided by its row scale, finite. codes[i] receives the nibble of values[i]; codes.size() = values.size().
/// kInt4 searches clipped ranges around the extremes and refines the scale by least squares; kE2M1 searches the stored scales near
/// amax / 6 (E8M0: the exponents floor(log2 amax) - 2 and one above, the smaller on a tie).
EncodedGroup EncodeInt4(std::span<const float> values, ZeroPoint zero, DType scale_dtype, std::span<uint8_t> codes);
EncodedGroup EncodeE2M1(std::span<const float> values, DType scale_dtype, std::span<uint8_t> codes);

}  // namespace billfish::format
