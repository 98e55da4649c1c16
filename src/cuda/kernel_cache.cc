#include "cuda/kernel_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <span>
#include <thread>

#include "core/status_macros.h"
#include "cuda/jit_key.h"
#include "cuda/sha256.h"

namespace billfish::cuda {
namespace {

constexpr std::array<char, 8> kMagic = {'b', 'f', 'k', 'e', 'r', 'n', 'e', 'l'};
constexpr size_t kKeyDigits = 64;
constexpr size_t kDigestBytes = 32;
// A cubin of billfish is below 1 MB; a damaged length must not become a large allocation.
constexpr off_t kMaxEntryBytes = 64 << 20;
constexpr int64_t kStaleSeconds = 3600;

struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kEntryVersion;
  int32_t registers = 0;
  int32_t spill_bytes = 0;
  uint32_t log_bytes = 0;
  uint64_t cubin_bytes = 0;
  std::array<char, kKeyDigits> key{};
};
static_assert(sizeof(Header) == 96);

class FileHandle {
 public:
  explicit FileHandle(int file) : file_(file) {}
  FileHandle(const FileHandle&) = delete;
  FileHandle& operator=(const FileHandle&) = delete;
  ~FileHandle() {
    if (file_ >= 0) close(file_);
  }
  int get() const { return file_; }

 private:
  int file_;
};

bool ReadAll(int file, std::vector<std::byte>& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t got = read(file, bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

bool WriteAll(int file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = write(file, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return true;
}

std::vector<std::byte> Serialise(const std::string& key, const CompiledKernel& kernel) {
  Header header;
  header.registers = kernel.registers;
  header.spill_bytes = kernel.spill_bytes;
  header.log_bytes = static_cast<uint32_t>(kernel.log.size());
  header.cubin_bytes = kernel.cubin.size();
  std::copy_n(key.begin(), std::min(key.size(), kKeyDigits), header.key.begin());
  std::vector<std::byte> bytes;
  const auto add = [&](std::span<const std::byte> part) { bytes.insert(bytes.end(), part.begin(), part.end()); };
  add(std::as_bytes(std::span(&header, 1)));
  add(std::as_bytes(std::span(kernel.log)));
  add(kernel.cubin);
  Sha256 hash;
  hash.Add(bytes);
  add(hash.Finish());
  return bytes;
}

std::optional<CompiledKernel> Parse(const std::string& key, std::span<const std::byte> bytes) {
  Header header;
  if (bytes.size() < sizeof(header) + kDigestBytes) return std::nullopt;
  const auto body = bytes.first(bytes.size() - kDigestBytes);
  Sha256 hash;
  hash.Add(body);
  const auto digest = hash.Finish();
  if (!std::equal(digest.begin(), digest.end(), bytes.last(kDigestBytes).begin())) return std::nullopt;
  std::memcpy(&header, body.data(), sizeof(header));
  const auto payload = body.subspan(sizeof(header));
  if (header.magic != kMagic || header.version != kEntryVersion ||
      !std::equal(header.key.begin(), header.key.end(), key.begin(), key.end()) || header.cubin_bytes > payload.size() ||
      payload.size() - header.cubin_bytes != header.log_bytes) {
    return std::nullopt;
  }
  CompiledKernel kernel;
  const auto log = payload.first(header.log_bytes);
  const auto cubin = payload.subspan(header.log_bytes);
  kernel.log.assign(reinterpret_cast<const char*>(log.data()), log.size());
  kernel.cubin.assign(cubin.begin(), cubin.end());
  kernel.registers = header.registers;
  kernel.spill_bytes = header.spill_bytes;
  return kernel;
}

// mkdir -p for this user alone; parents that exist stay as they are.
bool MakeFolder(const std::string& folder) {
  for (size_t slash = folder.find('/', 1);; slash = folder.find('/', slash + 1)) {
    const std::string parent = folder.substr(0, slash);
    if (mkdir(parent.c_str(), 0700) != 0 && errno != EEXIST) return false;
    if (slash == std::string::npos) return true;
  }
}

Status IoError(const std::string& what, const std::string& path) {
  return Status(ErrorCode::kIo, fmt::format("a compiled kernel was to be kept, but {} {} failed: {}; it is compiled again next time", what,
                                            path, std::strerror(errno)));
}

}  // namespace

std::optional<std::string> KernelCache::DefaultFolder() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (std::string folder = variable("BILLFISH_CACHE_DIR"); !folder.empty()) return folder;
  if (const std::string caches = variable("XDG_CACHE_HOME"); !caches.empty()) return caches + "/billfish";
  if (const std::string home = variable("HOME"); !home.empty()) return home + "/.cache/billfish";
  return std::nullopt;
}

std::optional<CompiledKernel> KernelCache::Read(const std::string& key) const {
  const std::string path = EntryPath(key);
  const FileHandle file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (file.get() < 0 || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > kMaxEntryBytes) return std::nullopt;
  // Code that another user could have written is not run.
  if ((info.st_uid != geteuid() && info.st_uid != 0) || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0) return std::nullopt;
  std::vector<std::byte> bytes(static_cast<size_t>(info.st_size));
  if (!ReadAll(file.get(), bytes)) return std::nullopt;
  std::optional<CompiledKernel> kernel = Parse(key, bytes);
  if (kernel.has_value()) futimens(file.get(), nullptr);  // the time of last use, for Prune; may be refused on a read-only folder
  return kernel;
}

Status KernelCache::Write(const std::string& key, const CompiledKernel& kernel) const {
  if (!MakeFolder(folder_)) return IoError("creating the folder", folder_);
  static std::atomic<int> serial{0};
  const std::string temporary = fmt::format("{}/{}.{}.{}.tmp", folder_, key, getpid(), serial++);
  {
    const FileHandle file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (file.get() < 0) return IoError("creating", temporary);
    if (!WriteAll(file.get(), Serialise(key, kernel)) || fsync(file.get()) != 0) {
      Status failed = IoError("writing", temporary);
      unlink(temporary.c_str());
      return failed;
    }
  }
  if (rename(temporary.c_str(), EntryPath(key).c_str()) != 0) {
    Status failed = IoError("renaming", temporary);
    unlink(temporary.c_str());
    return failed;
  }
  Prune(EntryPath(key));
  return OkStatus();
}

KernelCache::Lock KernelCache::Acquire(const std::string& key, std::chrono::milliseconds timeout) const {
  Lock lock;
  if (!MakeFolder(folder_)) return lock;
  lock.path_ = folder_ + "/" + key + ".lock";
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const int file = open(lock.path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file < 0) return lock;
  while (flock(file, LOCK_EX | LOCK_NB) != 0) {
    if ((errno != EWOULDBLOCK && errno != EINTR) || std::chrono::steady_clock::now() >= deadline) {
      close(file);
      return lock;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  lock.file_ = file;
  return lock;
}

KernelCache::Lock::~Lock() {
  if (file_ < 0) return;
  // Whoever opened the old file meanwhile may run beside a newcomer: two builds of one entry, both right.
  unlink(path_.c_str());
  close(file_);
}

std::vector<KernelCache::File> KernelCache::List(const char* suffix) const {
  std::vector<File> files;
  DIR* folder = opendir(folder_.c_str());
  if (folder == nullptr) return files;
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    const size_t dot = name.find('.');
    // Only names that start with a key: the folder may hold what is not ours.
    if (dot != kKeyDigits || name.find_first_not_of("0123456789abcdef") != dot || !name.ends_with(suffix)) continue;
    File file{folder_ + "/" + name};
    struct stat info {};
    if (lstat(file.path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    file.bytes = static_cast<uint64_t>(info.st_size);
    file.used_ns = info.st_mtim.tv_sec * 1000000000LL + info.st_mtim.tv_nsec;
    files.push_back(std::move(file));
  }
  closedir(folder);
  return files;
}

void KernelCache::Prune(const std::string& keep) const {
  const int64_t stale_ns = (static_cast<int64_t>(std::time(nullptr)) - kStaleSeconds) * 1000000000LL;
  for (const File& file : List(".tmp")) {
    if (file.used_ns < stale_ns) unlink(file.path.c_str());
  }
  std::vector<File> entries = List(".kernel");
  uint64_t total = 0;
  for (const File& file : entries) total += file.bytes;
  std::sort(entries.begin(), entries.end(), [](const File& a, const File& b) { return a.used_ns < b.used_ns; });
  for (const File& file : entries) {
    if (total <= max_bytes_) break;
    if (file.path == keep) continue;
    unlink(file.path.c_str());
    total -= file.bytes;
  }
}

Result<int> KernelCache::Clear() const {
  int removed = 0;
  for (const char* suffix : {".kernel", ".tmp", ".lock"}) {
    for (const File& file : List(suffix)) {
      if (unlink(file.path.c_str()) != 0 && errno != ENOENT) {
        return Status(ErrorCode::kIo,
                      fmt::format("the kernel cache was to be cleared, but removing {} failed: {}", file.path, std::strerror(errno)));
      }
      if (std::string_view(suffix) == ".kernel") ++removed;
    }
  }
  return removed;
}

uint64_t KernelCache::TotalBytes() const {
  uint64_t total = 0;
  for (const File& file : List(".kernel")) total += file.bytes;
  return total;
}

}  // namespace billfish::cuda
