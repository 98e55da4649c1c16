// A folder that appears under its name when it is complete. Until then it lies beside it as NAME.partial, with a note of its finished
// shards, so that an interrupted run can go on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "billfish/status.h"

namespace billfish::checkpoint {

class OutputFolder {
 public:
  OutputFolder(OutputFolder&& other) noexcept;
  OutputFolder& operator=(OutputFolder&&) = delete;
  ~OutputFolder();

  /// kInvalidArgument: `target` exists and `overwrite` is off, or it is no checkpoint and would be lost; kIo.
  static Status CheckTarget(const std::filesystem::path& target, bool overwrite);

  /// Creates or takes up target.partial. `fingerprint` says what is being made: shards of an earlier run count only if theirs is equal.
  /// kIo: also where another process writes there now, or the folder holds files of other origin.
  static Result<OutputFolder> Open(const std::filesystem::path& target, const nlohmann::json& fingerprint);

  std::filesystem::path File(const std::string& name) const { return partial_ / name; }
  bool IsFinished(const std::string& shard, uint64_t bytes) const;
  /// The shard is complete on the disk.
  Status MarkFinished(const std::string& shard, uint64_t bytes);
  /// Moves the folder to its name. An existing one is exchanged for it in one step and then removed.
  Status Publish(bool overwrite);

 private:
  OutputFolder(std::filesystem::path target, std::filesystem::path partial, int lock)
      : target_(std::move(target)), partial_(std::move(partial)), lock_(lock) {}
  Status StartAfresh() const;
  Status WriteNote() const;

  std::filesystem::path target_, partial_;
  int lock_ = -1;  ///< the folder itself, locked; the lock ends with the process
  nlohmann::json fingerprint_;
  std::map<std::string, uint64_t> finished_;
};

}  // namespace billfish::checkpoint
