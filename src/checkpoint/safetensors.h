// The safetensors header: where each tensor of one file lies. Source: the safetensors format description and its reference parser.
//
//   u64 N | N bytes of JSON | tensor bytes                   offsets in the JSON count from the start of the tensor bytes
//
// Accepted is exactly what the reference parser accepts, except that duplicate names are refused: N <= 100,000,000, UTF-8 JSON that
// starts with '{', known element types, sizes that match shape and type, offsets that cover the rest of the file without hole, overlap
// or remainder. Values are not looked at.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "billfish/checkpoint.h"

namespace billfish::checkpoint {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;              ///< sorted by name; shard = 0, file_offset counts from the start of the file
  std::map<std::string, std::string> metadata;  ///< "__metadata__"
};

/// `file` is the whole file. kCorruptFile with the broken rule.
Result<SafetensorsHeader> ParseSafetensors(std::span<const std::byte> file);

}  // namespace billfish::checkpoint
