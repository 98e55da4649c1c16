#include "checkpoint/writer/companion_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "checkpoint/mapped_file.h"
#include "checkpoint/writer/durable_file.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

namespace fs = std::filesystem;

struct NamePattern {
  std::string_view prefix, suffix;
};

constexpr NamePattern kCompanions[] = {
    {"tokenizer", ""},
    {"special_tokens_map", ".json"},
    {"added_tokens", ".json"},
    {"vocab", ""},
    {"merges", ".txt"},
    {"chat_template", ""},
    {"generation_config", ".json"},
    {"preprocessor_config", ".json"},
    {"processor_config", ".json"},
    {"", ".jinja"},
    {"", ".tiktoken"},
    {"configuration_", ".py"},
    {"modeling_", ".py"},
    {"tokenization_", ".py"},
    {"LICENSE", ""},
    {"NOTICE", ""},
    {"USAGE_POLICY", ""},
};
constexpr const char* kTemplateFolder = "additional_chat_templates";

bool IsCompanion(const std::string& name) {
  return std::any_of(std::begin(kCompanions), std::end(kCompanions), [&](const NamePattern& pattern) {
    return name.size() >= pattern.prefix.size() + pattern.suffix.size() && name.compare(0, pattern.prefix.size(), pattern.prefix) == 0 &&
           name.compare(name.size() - pattern.suffix.size(), pattern.suffix.size(), pattern.suffix) == 0;
  });
}

Status CopyOne(const fs::path& from, const fs::path& to) {
  BILLFISH_ASSIGN_OR_RETURN(const Bytes bytes, MapFile(from));
  return WriteDurableText(to, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

Status CopyFolder(const fs::path& from, const fs::path& to, bool all) {
  std::error_code error;
  fs::directory_iterator it(from, error);
  for (const fs::directory_iterator end; !error && it != end; it.increment(error)) {
    std::error_code unreadable;
    const std::string name = it->path().filename().string();
    if (!it->is_regular_file(unreadable) || !(all || IsCompanion(name))) continue;
    BILLFISH_RETURN_IF_ERROR(CopyOne(it->path(), to / name));
  }
  return error ? Status(ErrorCode::kIo, fmt::format("{} cannot be listed: {}", from.string(), error.message())) : OkStatus();
}

}  // namespace

Status CopyCompanionFiles(const fs::path& from, const fs::path& to) {
  BILLFISH_RETURN_IF_ERROR(CopyFolder(from, to, false));
  std::error_code error;
  if (!fs::is_directory(from / kTemplateFolder, error)) return OkStatus();
  fs::create_directory(to / kTemplateFolder, error);
  if (error) return {ErrorCode::kIo, fmt::format("{} cannot be created: {}", (to / kTemplateFolder).string(), error.message())};
  return CopyFolder(from / kTemplateFolder, to / kTemplateFolder, true);
}

}  // namespace billfish::checkpoint
