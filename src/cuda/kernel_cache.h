// A folder of compiled kernels that any number of processes share.
//
// One file an entry, "<key>.kernel": header, cubin, SHA-256 over both. It appears under its name only when it is complete (temporary file,
// fsync, rename), so a process that is killed leaves at most a temporary file, which is removed an hour later. A reader accepts an entry
// only if its checksum and its key are right and nobody else could have written it; anything else is as if it were not there, and the
// next Write replaces it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "billfish/status.h"
#include "cuda/jit.h"

namespace billfish::cuda {

class KernelCache {
 public:
  static constexpr uint64_t kMaxBytes = uint64_t{512} << 20;

  /// Nothing is created before the first Write. `max_bytes` bounds the sum of all entries.
  explicit KernelCache(std::string folder, uint64_t max_bytes = kMaxBytes) : folder_(std::move(folder)), max_bytes_(max_bytes) {}

  /// BILLFISH_CACHE_DIR, else $XDG_CACHE_HOME/billfish, else $HOME/.cache/billfish; nothing if none of the three is set.
  static std::optional<std::string> DefaultFolder();

  const std::string& folder() const { return folder_; }

  /// The entry, or nothing if it is absent, damaged or another user's. Marks it as used.
  std::optional<CompiledKernel> Read(const std::string& key) const;

  /// Publishes the entry, then removes the entries used longest ago until the bound holds. kIo: nothing was published.
  Status Write(const std::string& key, const CompiledKernel& kernel) const;

  /// Held until destroyed: the right to build one entry. Advisory: whoever cannot get it in time builds all the same.
  class Lock {
   public:
    Lock() = default;
    Lock(Lock&& other) noexcept : file_(std::exchange(other.file_, -1)), path_(std::move(other.path_)) {}
    Lock& operator=(Lock&&) = delete;
    ~Lock();
    bool held() const { return file_ >= 0; }

   private:
    friend class KernelCache;
    int file_ = -1;
    std::string path_;
  };
  Lock Acquire(const std::string& key, std::chrono::milliseconds timeout) const;

  /// Removes entries, locks and temporary files, nothing else; the number of entries that were removed.
  Result<int> Clear() const;
  /// Sum over the entries.
  uint64_t TotalBytes() const;

 private:
  struct File {
    std::string path;
    uint64_t bytes = 0;
    int64_t used_ns = 0;
  };
  std::string EntryPath(const std::string& key) const { return folder_ + "/" + key + ".kernel"; }
  std::vector<File> List(const char* suffix) const;
  void Prune(const std::string& keep) const;

  std::string folder_;
  uint64_t max_bytes_;
};

}  // namespace billfish::cuda
