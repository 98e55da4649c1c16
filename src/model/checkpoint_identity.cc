#include "model/checkpoint_identity.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "billfish/version.h"
#include "core/content_hash.h"

namespace billfish::model {
namespace {

namespace fs = std::filesystem;

// Every file that says how weights are to be read. The second to fourth are those of ModelOpt, GPTQ and AWQ.
constexpr const char* kConfigurations[] = {"config.json", "hf_quant_config.json", "quantize_config.json", "quant_config.json"};
constexpr uint64_t kLongestHeader = 100'000'000;

uint64_t HashOfText(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  if (in) text << in.rdbuf();
  return ContentHash(text.str());
}

// u64 length | header
uint64_t HashOfHeader(const fs::path& shard) {
  std::ifstream in(shard, std::ios::binary);
  uint64_t length = 0;
  in.read(reinterpret_cast<char*>(&length), sizeof length);
  std::string header(std::min(length, kLongestHeader), '\0');
  in.read(header.data(), static_cast<std::streamsize>(header.size()));
  return ContentHash(header);
}

}  // namespace

std::string IdentityOf(const Checkpoint& checkpoint) {
  std::string identity = fmt::format("billfish {}\n", Version().version);
  const fs::path folder = fs::is_directory(checkpoint.path()) ? checkpoint.path() : checkpoint.path().parent_path();
  for (const char* name : kConfigurations) identity += fmt::format("{:016x} ", HashOfText(folder / name));
  for (const fs::path& shard : checkpoint.shards()) {
    struct stat info {};
    // A file that vanished gives an identity nobody else has; reading it fails on its own.
    if (::stat(shard.c_str(), &info) != 0) info.st_size = -1;
    identity += fmt::format("\n{} bytes, {}.{:09}, {:016x}", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec, HashOfHeader(shard));
  }
  return identity;
}

}  // namespace billfish::model
