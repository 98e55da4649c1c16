// Writes one safetensors file, completely or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "billfish/status.h"
#include "billfish/tensor.h"

namespace billfish {

/// A tensor to write; the bytes are borrowed, row-major and little-endian.
struct SafetensorsEntry {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes path.part beside path, synchronises it to the disk and renames it, so that path always holds its old or its new content.
/// Tensors are stored aligned: by descending element size, then by name.
/// Errors: kInvalidArgument (a duplicate or reserved name, invalid UTF-8, bytes that do not fit dtype and shape), kIo.
Status WriteSafetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> tensors,
                        const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace billfish
