// A file that appears under its name complete and synchronised to the disk, or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "billfish/status.h"

namespace billfish::checkpoint {

/// Writes path.part; Commit renames it. Abandoned files are removed. Movable; Write may be called by several threads at once.
class DurableFile {
 public:
  DurableFile() = default;
  DurableFile(DurableFile&& other) noexcept;
  DurableFile& operator=(DurableFile&& other) noexcept;
  ~DurableFile();

  /// Reserves `bytes` on the disk, so that a full one is noticed before work is done. kIo names the path and the system's reason.
  static Result<DurableFile> Create(const std::filesystem::path& path, uint64_t bytes);

  Status Write(uint64_t offset, std::span<const std::byte> bytes) const;
  /// Synchronises, closes, renames and synchronises the folder.
  Status Commit();

 private:
  void Abandon();

  std::filesystem::path path_, part_;
  int fd_ = -1;
};

Status WriteDurableText(const std::filesystem::path& path, std::string_view text);

/// Makes renames inside the folder survive a power cut.
Status SyncFolder(const std::filesystem::path& folder);

/// kIo: "PATH cannot be WHAT: reason" from errno.
Status SystemError(const std::filesystem::path& path, std::string_view what);

}  // namespace billfish::checkpoint
