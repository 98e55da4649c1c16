#include "core/read_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

namespace billfish {

Result<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return Status(ErrorCode::kNotFound,
                  fmt::format("cannot read {}: {}", path.string(), error ? error.message() : "there is no such file"));
  }
  if (!std::filesystem::is_regular_file(status)) {
    return Status(ErrorCode::kIo, fmt::format("cannot read {}: it is not a regular file", path.string()));
  }
  const auto size = std::filesystem::file_size(path, error);
  if (error) return Status(ErrorCode::kIo, fmt::format("cannot read {}: {}", path.string(), error.message()));
  if (size > max_bytes) {
    return Status(ErrorCode::kCorruptFile,
                  fmt::format("{} has {} bytes, more than the {} that such a file may have", path.string(), size, max_bytes));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return Status(ErrorCode::kIo, fmt::format("cannot open {}: {}", path.string(), std::strerror(errno)));
  std::string text(static_cast<size_t>(size), '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (static_cast<size_t>(file.gcount()) != text.size()) {
    return Status(ErrorCode::kIo, fmt::format("{} ended after {} of {} bytes", path.string(), file.gcount(), size));
  }
  return text;
}

}  // namespace billfish
