// Packing 4-bit values eight to a 32-bit word, low nibble first.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "billfish/weight.h"

namespace billfish::checkpoint {

/// values [rows, columns] -> words [ceil(rows / 8), columns], nibble r % 8 of word (r / 8, c). Missing rows are zero.
inline std::vector<uint32_t> PackAlongRows(const std::vector<uint8_t>& values, int64_t rows, int64_t columns) {
  std::vector<uint32_t> words(static_cast<size_t>((rows + 7) / 8 * columns));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      words[static_cast<size_t>(r / 8 * columns + c)] |= static_cast<uint32_t>(values[static_cast<size_t>(r * columns + c)] & 15u)
                                                         << (4 * (r % 8));
    }
  }
  return words;
}

/// The zero points of a weight with E = 1, [N, G].
inline std::vector<uint8_t> ZeroPoints(const PackedWeight& weight) {
  std::vector<uint8_t> zeros(weight.parts().zeros.size());
  if (!zeros.empty()) std::memcpy(zeros.data(), weight.parts().zeros.data(), zeros.size());
  return zeros;
}

/// Where a zero point above 15 sits, or -1: four bits do not hold 16, which old GPTQ files can contain.
inline int64_t FirstWideZero(const std::vector<uint8_t>& zeros) {
  for (size_t i = 0; i < zeros.size(); ++i) {
    if (zeros[i] > 15) return static_cast<int64_t>(i);
  }
  return -1;
}

}  // namespace billfish::checkpoint
