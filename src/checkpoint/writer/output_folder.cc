#include "checkpoint/writer/output_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "checkpoint/mapped_file.h"
#include "checkpoint/writer/durable_file.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNoteName = ".billfish-partial.json";
constexpr const char* kUnnamedNote = ".billfish-partial.json.part";
constexpr size_t kMaxNoteBytes = 64u << 20;

Status IoError(const fs::path& path, std::string_view what, const std::error_code& error) {
  return {ErrorCode::kIo, fmt::format("{} cannot be {}: {}", path.string(), what, error.message())};
}

// A kill can leave a folder without a note in two moments: before the first note has its name, and after an exchange, when the old
// checkpoint waits here for its removal while the new one still holds the note.
bool IsLeftover(const fs::path& partial, const fs::path& target) {
  std::error_code error;
  if (fs::exists(target / kNoteName, error)) return true;
  for (fs::directory_iterator it(partial, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename() != kUnnamedNote) return false;
  }
  return !error;
}

// Whether losing the folder would lose no more than a checkpoint.
bool IsCheckpointOrEmpty(const fs::path& folder) {
  std::error_code error;
  if (fs::is_empty(folder, error) && !error) return true;
  if (fs::exists(folder / "config.json", error)) return true;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".safetensors") return true;
  }
  return false;
}

}  // namespace

OutputFolder::OutputFolder(OutputFolder&& other) noexcept
    : target_(std::move(other.target_)),
      partial_(std::move(other.partial_)),
      lock_(std::exchange(other.lock_, -1)),
      fingerprint_(std::move(other.fingerprint_)),
      finished_(std::move(other.finished_)) {}

OutputFolder::~OutputFolder() {
  if (lock_ >= 0) ::close(lock_);
}

Status OutputFolder::CheckTarget(const fs::path& target, bool overwrite) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(target, error);
  if (!fs::exists(status)) return OkStatus();
  if (!overwrite) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{} exists; choose another place, or allow it to be replaced with overwrite", target.string())};
  }
  if (!fs::is_directory(status) || !IsCheckpointOrEmpty(target)) {
    return {ErrorCode::kInvalidArgument, fmt::format("{} exists and is no checkpoint folder; it is not replaced", target.string())};
  }
  return OkStatus();
}

Result<OutputFolder> OutputFolder::Open(const fs::path& target, const nlohmann::json& fingerprint) {
  fs::path partial = target;
  partial += ".partial";
  std::error_code error;
  if (partial.has_parent_path()) fs::create_directories(partial.parent_path(), error);
  if (!error) fs::create_directory(partial, error);
  if (error) return IoError(partial, "created", error);
  const int lock = ::open(partial.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0) return SystemError(partial, "opened");
  OutputFolder folder(target, partial, lock);
  if (::flock(lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return Status(ErrorCode::kIo,
                  fmt::format("{} is being written by another process; wait for it or choose another place", partial.string()));
  }
  folder.fingerprint_ = fingerprint;
  const Result<std::string> text = ReadText(partial / kNoteName, kMaxNoteBytes);
  if (!text.ok() && text.error().code() != ErrorCode::kNotFound) return text.error();
  if (!text.ok() && !IsLeftover(partial, target)) {
    return Status(ErrorCode::kIo,
                  fmt::format("{} holds files and no note of an unfinished run; remove it and run again", partial.string()));
  }
  const nlohmann::json note = text.ok() ? nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false) : nlohmann::json();
  const auto made_of = note.is_object() ? note.find("made_of") : note.end();
  const auto shards = note.is_object() ? note.find("finished") : note.end();
  if (note.is_object() && made_of != note.end() && *made_of == fingerprint && shards != note.end() && shards->is_object()) {
    for (const auto& [name, bytes] : shards->items()) {
      if (bytes.is_number_unsigned()) folder.finished_[name] = bytes.get<uint64_t>();
    }
    return folder;
  }
  BILLFISH_RETURN_IF_ERROR(folder.StartAfresh());
  return folder;
}

// The note goes last, so that a kill in between leaves a folder that is still known as billfish's.
Status OutputFolder::StartAfresh() const {
  std::error_code error;
  for (fs::directory_iterator it(partial_, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename() != kNoteName) fs::remove_all(it->path(), error);
    if (error) break;
  }
  if (error) return IoError(partial_, "emptied", error);
  return WriteNote();
}

Status OutputFolder::WriteNote() const {
  const nlohmann::json note = {{"made_of", fingerprint_}, {"finished", finished_}};
  return WriteDurableText(partial_ / kNoteName, note.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
}

bool OutputFolder::IsFinished(const std::string& shard, uint64_t bytes) const {
  const auto it = finished_.find(shard);
  std::error_code error;
  return it != finished_.end() && it->second == bytes && fs::file_size(partial_ / shard, error) == bytes && !error;
}

Status OutputFolder::MarkFinished(const std::string& shard, uint64_t bytes) {
  finished_[shard] = bytes;
  return WriteNote();
}

Status OutputFolder::Publish(bool overwrite) {
  BILLFISH_RETURN_IF_ERROR(SyncFolder(partial_));
  std::error_code error;
  // Something may have appeared there while this ran.
  BILLFISH_RETURN_IF_ERROR(CheckTarget(target_, overwrite));
  if (!fs::exists(fs::symlink_status(target_, error))) {
    if (::rename(partial_.c_str(), target_.c_str()) != 0) return SystemError(target_, "given its name");
  } else if (::syscall(SYS_renameat2, AT_FDCWD, partial_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
    fs::remove_all(partial_, error);
    if (error) return IoError(partial_, "removed, the replaced checkpoint,", error);
  } else if (errno == EINVAL || errno == ENOSYS) {  // no exchange on this file system: two steps, the old one never lost
    fs::path replaced = target_;
    replaced += ".replaced";
    if (::rename(target_.c_str(), replaced.c_str()) != 0) return SystemError(target_, "moved aside");
    if (::rename(partial_.c_str(), target_.c_str()) != 0) {
      Status failed = SystemError(target_, "given its name");
      fs::rename(replaced, target_, error);
      return failed;
    }
    fs::remove_all(replaced, error);
    if (error) return IoError(replaced, "removed", error);
  } else {
    return SystemError(target_, "replaced");
  }
  // Last, since it tells the next run whose leftovers lie beside it.
  fs::remove(target_ / kNoteName, error);
  return SyncFolder(target_.has_parent_path() ? target_.parent_path() : ".");
}

}  // namespace billfish::checkpoint
