// Where each tensor of a safetensors file to be written will lie, known before any of its bytes are.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "billfish/status.h"
#include "billfish/tensor.h"

namespace billfish::checkpoint {

struct OutputTensor {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;

  uint64_t bytes() const;
};

struct SafetensorsLayout {
  std::string header;             ///< the first bytes of the file, length included
  std::vector<uint64_t> offsets;  ///< of each tensor as given, from the start of the file
  uint64_t file_bytes = 0;
};

/// Tensors by descending element size, then by name, behind a header padded to 8 bytes: all aligned, as the format's own writers do.
/// kInvalidArgument: a duplicate name, "__metadata__", a name that is no UTF-8, a header above the format's 100,000,000 bytes.
Result<SafetensorsLayout> LayOutSafetensors(std::span<const OutputTensor> tensors, const std::map<std::string, std::string>& metadata);

}  // namespace billfish::checkpoint
