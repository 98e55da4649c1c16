#include "checkpoint/writer/durable_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

// A write of more than about 2 GB is cut short by the kernel; smaller pieces also let signals through.
constexpr size_t kWriteBytes = 16u << 20;

}  // namespace

Status SystemError(const std::filesystem::path& path, std::string_view what) {
  const int error = errno;
  const char* advice = "";
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) advice = "; make room or choose another place, then run again";
  return {ErrorCode::kIo, fmt::format("{} cannot be {}: {}{}", path.string(), what, std::strerror(error), advice)};
}

DurableFile::DurableFile(DurableFile&& other) noexcept
    : path_(std::move(other.path_)), part_(std::move(other.part_)), fd_(std::exchange(other.fd_, -1)) {}

DurableFile& DurableFile::operator=(DurableFile&& other) noexcept {
  if (this == &other) return *this;
  Abandon();
  path_ = std::move(other.path_);
  part_ = std::move(other.part_);
  fd_ = std::exchange(other.fd_, -1);
  return *this;
}

DurableFile::~DurableFile() { Abandon(); }

void DurableFile::Abandon() {
  if (fd_ < 0) return;
  ::close(std::exchange(fd_, -1));
  ::unlink(part_.c_str());
}

Result<DurableFile> DurableFile::Create(const std::filesystem::path& path, uint64_t bytes) {
  DurableFile file;
  file.path_ = path;
  file.part_ = path;
  file.part_ += ".part";
  file.fd_ = ::open(file.part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file.fd_ < 0) return SystemError(path, "created");
  if (bytes == 0) return file;
  int failed = 0;
  do {
    failed = ::fallocate(file.fd_, 0, 0, static_cast<off_t>(bytes));
  } while (failed != 0 && errno == EINTR);
  // Not every file system can reserve; the writes find out then.
  if (failed != 0 && errno != EOPNOTSUPP && errno != ENOSYS) return SystemError(path, fmt::format("given its {} bytes", bytes));
  return file;
}

Status DurableFile::Write(uint64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), std::min(bytes.size(), kWriteBytes), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return SystemError(path_, "written");
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return OkStatus();
}

Status DurableFile::Commit() {
  if (::fsync(fd_) != 0) return SystemError(path_, "synchronised to the disk");
  if (::close(std::exchange(fd_, -1)) != 0) {
    Status error = SystemError(path_, "closed");
    ::unlink(part_.c_str());
    return error;
  }
  if (::rename(part_.c_str(), path_.c_str()) != 0) {
    Status error = SystemError(path_, "replaced");
    ::unlink(part_.c_str());
    return error;
  }
  return SyncFolder(path_.has_parent_path() ? path_.parent_path() : ".");
}

Status WriteDurableText(const std::filesystem::path& path, std::string_view text) {
  BILLFISH_ASSIGN_OR_RETURN(DurableFile file, DurableFile::Create(path, text.size()));
  BILLFISH_RETURN_IF_ERROR(file.Write(0, std::as_bytes(std::span<const char>(text.data(), text.size()))));
  return file.Commit();
}

Status SyncFolder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SystemError(folder, "opened");
  const bool synced = ::fsync(fd) == 0 || errno == EINVAL || errno == EROFS;  // some file systems have no such thing for folders
  Status status = synced ? OkStatus() : SystemError(folder, "synchronised to the disk");
  ::close(fd);
  return status;
}

}  // namespace billfish::checkpoint
