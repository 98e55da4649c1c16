// NumPy .npy files of token ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "billfish/status.h"

namespace billfish {

/// The token ids of a one-dimensional little-endian integer array (i1..i8, u1..u8), or of a two-dimensional one in C order, row after
/// row. Format versions 1.0, 2.0 and 3.0 (NumPy's numpy/lib/format.py).
/// Errors: kNotFound, kIo, kCorruptFile (breaks the format, wrong length), kUnsupported (another dtype, Fortran order, more
/// dimensions), kInvalidArgument (an id outside 0..2^31-1; names its index).
Result<std::vector<int32_t>> ReadNpyIds(const std::filesystem::path& path);

}  // namespace billfish
