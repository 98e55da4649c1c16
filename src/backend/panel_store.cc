#include "backend/panel_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/content_hash.h"
#include "core/rounding.h"
#include "core/status_macros.h"
#include "format/scheme_rules.h"

namespace billfish {
namespace fs = std::filesystem;

struct PanelStore::Impl {
  fs::path folder;
  std::string identity;
  struct Use {
    bool written;
    size_t bytes;
  };
  std::once_flag swept;
  std::mutex mutex;
  std::map<std::string, Use> uses;  // by entry; the last one counts
  std::string note;

  void Note(const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (note.empty()) note = text;
  }
  void Count(const std::string& name, Use use) {
    const std::lock_guard<std::mutex> lock(mutex);
    uses[name] = use;
  }
};

PanelStore::PanelStore(fs::path folder, std::string identity) : impl_(std::make_unique<Impl>()) {
  impl_->folder = std::move(folder);
  impl_->identity = std::move(identity);
}
PanelStore::~PanelStore() = default;
PanelStore::PanelStore(PanelStore&&) noexcept = default;
PanelStore& PanelStore::operator=(PanelStore&&) noexcept = default;

PanelStore::Report PanelStore::report() const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  Report report;
  report.note = impl_->note;
  for (const auto& [name, use] : impl_->uses) {
    ++(use.written ? report.written : report.mapped);
    (use.written ? report.written_bytes : report.mapped_bytes) += use.bytes;
  }
  return report;
}

namespace backend {
namespace {

constexpr uint64_t kMagic = 0x31454C4946504642;  // "BFPFILE1", little-endian
constexpr size_t kPage = 4096;
constexpr std::string_view kSuffix = ".panels";
constexpr std::string_view kTemporary = ".unfinished";
constexpr auto kAbandoned = std::chrono::hours(1);

struct FileHeader {
  uint64_t magic;
  uint64_t header_hash;  ///< of this header with header_hash = 0, and of the key
  uint64_t key_bytes, image_begin, image_bytes, image_hash, weight_bytes;
  int64_t group, group_rows;
  uint8_t codes, scale, zero, row_scale, act_order;
  uint8_t padding[256 - 9 * 8 - 5];
};
static_assert(sizeof(FileHeader) == 256 && std::is_trivially_copyable_v<FileHeader>);

std::string KeyOf(const PanelEntry& entry) { return entry.store->impl().identity + '\n' + entry.name; }

fs::path PathOf(const PanelEntry& entry, const std::string& key) {
  return entry.store->impl().folder / fmt::format("{:016x}{:016x}{}", ContentHash(key, 1), ContentHash(key, 2), kSuffix);
}

uint64_t HashOf(FileHeader header, std::string_view key) {
  header.header_hash = 0;
  return ContentHash(std::as_bytes(std::span<const FileHeader>(&header, 1)), ContentHash(key));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string SystemReason(const char* what) { return fmt::format("cannot be {}: {}", what, std::strerror(errno)); }

// Empty Bytes where there is no such file. A file that is replaced or deleted later does not touch the mapping; nobody writes into one.
Result<Bytes> Map(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0 && (errno == ENOENT || errno == ENOTDIR)) return Bytes();
  struct stat info {};
  if (file.get() < 0 || ::fstat(file.get(), &info) != 0) return Status(ErrorCode::kIo, SystemReason("opened"));
  if (!S_ISREG(info.st_mode)) return Status(ErrorCode::kIo, "is not a regular file");
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return Status(ErrorCode::kCorruptFile, "is empty");
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return Status(ErrorCode::kIo, SystemReason("mapped"));
  ::madvise(memory, size, MADV_WILLNEED);
  std::shared_ptr<const void> owner(memory, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
  return Bytes(owner, {static_cast<const std::byte*>(memory), size});
}

Result<StoredPanels> Parse(const Bytes& file, std::string_view key, int threads) {
  FileHeader header;
  if (file.size() < sizeof header) return Status(ErrorCode::kCorruptFile, "is shorter than its header");
  std::memcpy(&header, file.data(), sizeof header);
  const auto stored_key = [&] { return std::string_view(file.as<char>() + sizeof header, key.size()); };
  if (header.magic != kMagic || header.key_bytes != key.size() || file.size() - sizeof header < key.size() || stored_key() != key) {
    return Status(ErrorCode::kCorruptFile, "was made by something else");
  }
  if (header.header_hash != HashOf(header, key)) return Status(ErrorCode::kCorruptFile, "has a damaged header");
  if (header.image_begin > file.size() || file.size() - header.image_begin != header.image_bytes) {
    return Status(ErrorCode::kCorruptFile,
                  fmt::format("has {} bytes and should have {}", file.size(), header.image_begin + header.image_bytes));
  }
  const Bytes image = file.Slice(header.image_begin, header.image_bytes);
  if (ContentHashOfBlocks(image.view(), threads) != header.image_hash) {
    return Status(ErrorCode::kCorruptFile, "has damaged panels: their checksum is wrong");
  }
  StoredPanels stored;
  stored.facts.scheme = {CodeBook(header.codes), header.group,           header.group_rows,
                         DType(header.scale),    ZeroPoint(header.zero), header.row_scale != 0};
  BILLFISH_RETURN_IF_ERROR(format::CheckScheme(stored.facts.scheme));
  stored.facts.act_order = header.act_order != 0;
  stored.facts.weight_bytes = header.weight_bytes;
  BILLFISH_ASSIGN_OR_RETURN(stored.weight, cpu::CpuWeight::FromImage(image));
  return stored;
}

bool WriteAll(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return true;
}

// What processes that were killed while writing left behind.
void RemoveAbandoned(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() != kTemporary) continue;
    std::error_code gone;
    const fs::file_time_type written = fs::last_write_time(it->path(), gone);
    if (!gone && fs::file_time_type::clock::now() - written > kAbandoned) fs::remove(it->path(), gone);
  }
}

// The reason of a failure, or empty. No fsync: a file torn by a crash of the machine fails its checksum and is made anew.
std::string Write(const fs::path& path, std::span<const std::byte> head, std::span<const std::byte> image) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) return "cannot be created: " + error.message();
  static std::atomic<int> counter{0};
  const fs::path unfinished = fmt::format("{}.{}-{}{}", path.string(), ::getpid(), counter++, kTemporary);
  const Descriptor file(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (file.get() < 0) return SystemReason("created");
  std::string reason;
  if (!WriteAll(file.get(), head) || !WriteAll(file.get(), image)) {
    reason = SystemReason("written");
  } else if (::rename(unfinished.c_str(), path.c_str()) != 0) {
    reason = SystemReason("renamed");
  }
  if (!reason.empty()) ::unlink(unfinished.c_str());
  return reason;
}

}  // namespace

std::optional<StoredPanels> FindPanels(const PanelEntry& entry, int threads) {
  if (entry.store == nullptr) return std::nullopt;
  const std::string key = KeyOf(entry);
  const fs::path path = PathOf(entry, key);
  const Result<Bytes> file = Map(path);
  if (file.ok() && file->empty()) return std::nullopt;
  Result<StoredPanels> stored = file.ok() ? Parse(*file, key, threads) : file.error();
  if (stored.ok()) return std::move(*stored);
  entry.store->impl().Note(fmt::format("{} (for {}) {}; packed anew", path.string(), entry.name, stored.error().message()));
  return std::nullopt;
}

void CountMapped(const PanelEntry& entry, size_t bytes) { entry.store->impl().Count(entry.name, {false, bytes}); }

void KeepPanels(const PanelEntry& entry, const WeightFacts& facts, const cpu::CpuWeight& weight, int threads) {
  PanelStore::Impl& store = entry.store->impl();
  const std::string key = KeyOf(entry);
  const std::span<const std::byte> image = weight.image();
  FileHeader header{};
  header.magic = kMagic;
  header.key_bytes = key.size();
  header.image_begin = RoundUp(sizeof header + key.size(), kPage);
  header.image_bytes = image.size();
  header.image_hash = ContentHashOfBlocks(image, threads);
  header.weight_bytes = facts.weight_bytes;
  header.group = facts.scheme.group;
  header.group_rows = facts.scheme.group_rows;
  header.codes = static_cast<uint8_t>(facts.scheme.codes);
  header.scale = static_cast<uint8_t>(facts.scheme.scale);
  header.zero = static_cast<uint8_t>(facts.scheme.zero);
  header.row_scale = facts.scheme.row_scale ? 1 : 0;
  header.act_order = facts.act_order ? 1 : 0;
  header.header_hash = HashOf(header, key);
  std::vector<std::byte> head(header.image_begin);
  std::memcpy(head.data(), &header, sizeof header);
  std::memcpy(head.data() + sizeof header, key.data(), key.size());

  const fs::path path = PathOf(entry, key);
  std::call_once(store.swept, RemoveAbandoned, store.folder);
  const std::string reason = Write(path, head, image);
  if (!reason.empty()) return store.Note(fmt::format("{} (for {}) {}; the next run packs again", path.string(), entry.name, reason));
  store.Count(entry.name, {true, image.size()});
}

}  // namespace backend
}  // namespace billfish
