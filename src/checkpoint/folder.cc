#include "checkpoint/folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "checkpoint/mapped_file.h"
#include "checkpoint/quant_config.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIndexBytes = 128u << 20;
constexpr const char* kIndexName = "model.safetensors.index.json";

bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos && name.find('\\') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// A link may lead to a file of the same folder or, in a download cache, from snapshots/<commit>/ to blobs/.
Status CheckLink(const fs::path& root, const fs::path& file) {
  std::error_code error;
  const fs::path target = fs::canonical(file, error);
  if (error) return {ErrorCode::kNotFound, fmt::format("{} cannot be opened: {}", file.string(), error.message())};
  const fs::path folder = fs::canonical(root, error);
  if (error) return {ErrorCode::kIo, fmt::format("{} cannot be resolved: {}", root.string(), error.message())};
  if (target.parent_path() == folder) return OkStatus();
  const fs::path snapshots = folder.parent_path();
  if (snapshots.filename() == "snapshots" && target.parent_path() == snapshots.parent_path() / "blobs") return OkStatus();
  return {ErrorCode::kCorruptFile, fmt::format("{} is a link to {}, outside its folder", file.string(), target.string())};
}

Status ReadIndex(const std::string& text, Folder& folder) {
  BILLFISH_ASSIGN_OR_RETURN(const nlohmann::json index, ParseJson(text, kIndexName));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty()) {
    return {ErrorCode::kCorruptFile, fmt::format("{}: \"weight_map\" must be an object that names each tensor's file", kIndexName)};
  }
  std::map<std::string, int> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsPlainName(file.get<std::string>())) {
      return {ErrorCode::kCorruptFile, fmt::format("{} puts \"{}\" into {}, which is no file name inside the folder", kIndexName, tensor,
                                                   file.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace))};
    }
    files.emplace(file.get<std::string>(), 0);
  }
  for (auto& [file, number] : files) {
    number = static_cast<int>(folder.shards.size());
    folder.shards.push_back(folder.root / file);
  }
  for (const auto& [tensor, file] : map->items()) folder.weight_map[tensor] = files[file.get<std::string>()];
  return OkStatus();
}

}  // namespace

Result<Folder> OpenFolder(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return Status(ErrorCode::kNotFound, fmt::format("{} does not exist", path.string()));
  Folder folder;
  if (!fs::is_directory(status)) {
    folder.root = path.has_parent_path() ? path.parent_path() : fs::path(".");
    folder.shards = {path};
    folder.single_file = true;
    return folder;
  }
  folder.root = path;
  if (Result<std::string> index = ReadText(path / kIndexName, kMaxIndexBytes); index.ok()) {
    BILLFISH_RETURN_IF_ERROR(ReadIndex(*index, folder));
  } else if (index.error().code() != ErrorCode::kNotFound) {
    return index.error();
  } else if (fs::exists(path / "model.safetensors", error)) {
    folder.shards = {path / "model.safetensors"};
  } else {
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      if (it->path().extension() == ".safetensors") folder.shards.push_back(it->path());
    }
    std::sort(folder.shards.begin(), folder.shards.end());
  }
  if (folder.shards.empty()) {
    return Status(ErrorCode::kNotFound,
                  fmt::format("{} holds no .safetensors file; other weight files (pickles, GGUF) are not read", path.string()));
  }
  for (const fs::path& shard : folder.shards) BILLFISH_RETURN_IF_ERROR(CheckLink(folder.root, shard));
  return folder;
}

}  // namespace billfish::checkpoint
