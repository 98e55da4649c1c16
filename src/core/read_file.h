// Reads a whole small file (configuration, tokenizer, templates, token ids).
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "billfish/status.h"

namespace billfish {

/// The bytes of `path`. Errors: kNotFound, kIo (not a regular file, unreadable), kCorruptFile (longer than max_bytes).
Result<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes);

}  // namespace billfish
