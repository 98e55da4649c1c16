// Which safetensors files make up a checkpoint, and that each lies where it may.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "billfish/status.h"

namespace billfish::checkpoint {

struct Folder {
  std::filesystem::path root;                 ///< the folder, or the parent of a single file
  std::vector<std::filesystem::path> shards;  ///< in order of name
  std::map<std::string, int> weight_map;      ///< tensor -> shard; empty without an index
  bool single_file = false;
};

/// model.safetensors.index.json names the files; else model.safetensors; else every *.safetensors of the folder (no subfolders).
/// A name in the index must be a plain file name, and a link must stay inside the folder, or lead from models--*/snapshots/* to the
/// blobs beside it as download caches do. Errors: kNotFound, kIo, kCorruptFile.
Result<Folder> OpenFolder(const std::filesystem::path& path);

}  // namespace billfish::checkpoint
