// The .npy container: header and raw data. Source: numpy/lib/format.py, versions 1.0 to 3.0.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"

namespace billfish {

struct NpyArray {
  std::string descr;  ///< NumPy's spelling, for example "<i4" or "|u1"
  size_t item_bytes = 0;
  std::vector<int64_t> shape;  ///< C order
  std::string_view data;       ///< exactly the elements; a part of the parsed bytes, maybe unaligned
};

/// Reads the header of a whole file in memory and checks the data's length against it. Accepts integers ("i", "u") of 1 to 8 bytes and
/// floats of 2, 4 and 8, little-endian, C order. Errors: kCorruptFile, kUnsupported.
Result<NpyArray> ParseNpy(std::string_view bytes);

}  // namespace billfish
