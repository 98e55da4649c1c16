// Which combinations of a QuantScheme's fields mean something, and the sizes that follow from one.
#pragma once

#include <cstdint>
#include <string>

#include "billfish/scheme.h"
#include "billfish/status.h"

namespace billfish::format {

/// kInvalidArgument with the field that means nothing, else ok.
Status CheckScheme(const QuantScheme& scheme);

/// 16- and 32-bit codes have no scales: the fields about scales take their neutral values, so that equal schemes compare equal.
QuantScheme Canonical(QuantScheme scheme);

/// ceil(count / size); size 0 stands for "all in one".
constexpr int64_t BlockCount(int64_t count, int64_t size) { return size == 0 ? 1 : (count + size - 1) / size; }

/// The array sizes of the plain form, in bytes except where said.
struct PlainSizes {
  int64_t row_bytes = 0;   ///< of the codes
  int64_t groups = 0;      ///< G
  int64_t scale_rows = 0;  ///< R
  int64_t scales = 0;      ///< number of scales, E * R * G; 0 if the scheme has none
  int64_t codes_bytes = 0;
  int64_t scales_bytes = 0;
  int64_t zeros_bytes = 0;
  int64_t row_scales = 0;  ///< number of fp32 row scales
};

/// kInvalidArgument if a dimension is below 1 or a product does not fit 63 bits. Precondition: CheckScheme passed.
Result<PlainSizes> SizesOf(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K);

}  // namespace billfish::format
