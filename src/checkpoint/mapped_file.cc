#include "checkpoint/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

struct Descriptor {
  explicit Descriptor(const std::filesystem::path& path) : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  int fd;
};

Status SystemError(const std::filesystem::path& path, const char* what) {
  const int error = errno;
  return {error == ENOENT || error == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo,
          fmt::format("{} cannot be {}: {}", path.string(), what, std::strerror(error))};
}

}  // namespace

Result<Bytes> MapFile(const std::filesystem::path& path) {
  const Descriptor file(path);
  if (file.fd < 0) return SystemError(path, "opened");
  struct stat info {};
  if (::fstat(file.fd, &info) != 0) return SystemError(path, "examined");
  if (!S_ISREG(info.st_mode)) return Status(ErrorCode::kIo, fmt::format("{} is not a regular file", path.string()));
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return Bytes();
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (memory == MAP_FAILED) return SystemError(path, "mapped");
  std::shared_ptr<const void> owner(memory, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
  return Bytes(owner, {static_cast<const std::byte*>(memory), size});
}

Result<std::string> ReadText(const std::filesystem::path& path, size_t max_bytes) {
  BILLFISH_ASSIGN_OR_RETURN(const Bytes bytes, MapFile(path));
  if (bytes.size() > max_bytes) {
    return Status(ErrorCode::kCorruptFile, fmt::format("{} has {} bytes; at most {} are read", path.string(), bytes.size(), max_bytes));
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace billfish::checkpoint
