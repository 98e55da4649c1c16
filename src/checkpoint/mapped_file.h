// A read-only memory-mapped file, shared by everything that views it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "billfish/status.h"
#include "billfish/weight.h"

namespace billfish::checkpoint {

/// Maps the whole file. An empty file gives empty Bytes. Errors: kNotFound, kIo (also for a path that is not a regular file).
Result<Bytes> MapFile(const std::filesystem::path& path);

/// Reads a small text file whole. Errors: kNotFound, kIo, kCorruptFile when it is larger than `max_bytes`.
Result<std::string> ReadText(const std::filesystem::path& path, size_t max_bytes);

}  // namespace billfish::checkpoint
