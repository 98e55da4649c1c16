#include "billfish/quantize.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <new>

#include "billfish/checkpoint.h"
#include "billfish/context.h"
#include "billfish/version.h"
#include "checkpoint/writer/companion_files.h"
#include "checkpoint/writer/durable_file.h"
#include "checkpoint/writer/output_folder.h"
#include "checkpoint/writer/plan.h"
#include "checkpoint/writer/write_plan.h"
#include "core/status_macros.h"

namespace billfish {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Output {
  fs::path target;
  bool overwrite = false;
  checkpoint::WriteSettings settings;
};

// "out/" and "out" are one place.
fs::path Normal(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

Status CheckPlaces(const fs::path& source, const fs::path& target, bool overwrite) {
  if (target.empty() || target == "." || target == "..") {
    return {ErrorCode::kInvalidArgument, fmt::format("\"{}\" was given as the place to write to; name a new folder", target.string())};
  }
  std::error_code error;
  const fs::path from = fs::weakly_canonical(source, error), to = fs::weakly_canonical(target, error);
  if (from == to || fs::is_regular_file(to, error)) {
    return {ErrorCode::kInvalidArgument, fmt::format("{} would be written over {}; name a new folder", target.string(), to.string())};
  }
  return checkpoint::OutputFolder::CheckTarget(target, overwrite);
}

// What tells one run's result from another's: the program, the request, and every source file by name, size and time.
Result<json> Fingerprint(const Checkpoint& source, json request) {
  json files = json::array();
  for (const fs::path& shard : source.shards()) {
    struct stat info {};
    if (::stat(shard.c_str(), &info) != 0) return checkpoint::SystemError(shard, "examined");
    files.push_back(
        {shard.filename().string(), info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec, static_cast<uint64_t>(info.st_ino)});
  }
  const VersionInfo version = Version();
  return json{{"program", fmt::format("{} {}", version.version, version.commit)}, {"request", std::move(request)}, {"files", files}};
}

json Request(const QuantizeOptions& options) {
  const QuantScheme& s = options.scheme;
  return {{"scheme", {int(s.codes), s.group, s.group_rows, int(s.scale), int(s.zero), s.row_scale}},
          {"modules", QuantModulesName(options.modules)},
          {"layout", QuantLayoutName(options.layout)},
          {"ignore", options.ignore},
          {"requantize", options.requantize},
          {"max_shard_bytes", options.max_shard_bytes}};
}

Status WriteFolder(const Checkpoint& source, const checkpoint::Plan& plan, json request, Output output) {
  request["config"] = plan.config;  // the source's configuration and what is made of it
  BILLFISH_ASSIGN_OR_RETURN(const json fingerprint, Fingerprint(source, std::move(request)));
  BILLFISH_ASSIGN_OR_RETURN(checkpoint::OutputFolder folder, checkpoint::OutputFolder::Open(output.target, fingerprint));
  checkpoint::WriteSettings& settings = output.settings;
  if (settings.threads < 1) settings.threads = DefaultThreads();
  BILLFISH_RETURN_IF_ERROR(checkpoint::WriteShards(source, plan, settings, folder));
  if (!plan.index.empty()) {
    BILLFISH_RETURN_IF_ERROR(checkpoint::WriteDurableText(folder.File("model.safetensors.index.json"), plan.index));
  }
  BILLFISH_RETURN_IF_ERROR(checkpoint::WriteDurableText(folder.File("config.json"), plan.config));
  if (fs::is_directory(source.path())) BILLFISH_RETURN_IF_ERROR(checkpoint::CopyCompanionFiles(source.path(), folder.File("")));
  return folder.Publish(output.overwrite);
}

Status Quantize(const fs::path& src, const fs::path& dst, QuantizeOptions options) {
  options.scheme = checkpoint::StoredScheme(options.layout, options.scheme);
  Output output{Normal(dst), options.overwrite, {{options.layout, options.requantize}, options.threads, options.progress}};
  BILLFISH_RETURN_IF_ERROR(CheckPlaces(src, output.target, options.overwrite));
  BILLFISH_ASSIGN_OR_RETURN(const Checkpoint source, Checkpoint::Open(src));
  BILLFISH_ASSIGN_OR_RETURN(const checkpoint::Plan plan, checkpoint::PlanQuantize(source, options));
  return WriteFolder(source, plan, Request(options), std::move(output));
}

Status Dequantize(const fs::path& src, const fs::path& dst, DType dtype, const DequantizeOptions& options) {
  Output output{Normal(dst), options.overwrite, {{}, options.threads, options.progress}};
  BILLFISH_RETURN_IF_ERROR(CheckPlaces(src, output.target, options.overwrite));
  BILLFISH_ASSIGN_OR_RETURN(const Checkpoint source, Checkpoint::Open(src));
  BILLFISH_ASSIGN_OR_RETURN(const checkpoint::Plan plan, checkpoint::PlanDequantize(source, dtype, options.max_shard_bytes));
  return WriteFolder(source, plan, {{"decode", DTypeName(dtype)}, {"max_shard_bytes", options.max_shard_bytes}}, std::move(output));
}

// Containers report exhaustion by an exception, which must not cross the API.
template <class Body>
Status CatchOutOfMemory(Body body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return {ErrorCode::kOutOfMemory, "there is not enough memory to plan the new checkpoint"};
  } catch (const fs::filesystem_error& error) {
    return {ErrorCode::kIo, error.what()};
  }
}

constexpr std::string_view kLayoutNames[] = {"compressed-tensors", "gptq", "gpt-oss"};
constexpr std::string_view kModulesNames[] = {"experts", "linears", "all"};

template <class Enum, size_t count>
Result<Enum> ByName(const std::string_view (&names)[count], std::string_view name, std::string_view what) {
  std::string all;
  for (size_t i = 0; i < count; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
    all += fmt::format("{}{}", i == 0 ? "" : i + 1 == count ? " or " : ", ", names[i]);
  }
  return Status(ErrorCode::kInvalidArgument, fmt::format("\"{}\" is no {}; give {}", name, what, all));
}

}  // namespace

std::string_view QuantLayoutName(QuantLayout layout) { return kLayoutNames[static_cast<size_t>(layout)]; }

Result<QuantLayout> QuantLayoutByName(std::string_view name) { return ByName<QuantLayout>(kLayoutNames, name, "layout"); }

std::string_view QuantModulesName(QuantModules modules) { return kModulesNames[static_cast<size_t>(modules)]; }

Result<QuantModules> QuantModulesByName(std::string_view name) { return ByName<QuantModules>(kModulesNames, name, "choice of modules"); }

Status QuantizeCheckpoint(const fs::path& src, const fs::path& dst, const QuantizeOptions& options) {
  return CatchOutOfMemory([&] { return Quantize(src, dst, options); });
}

Status DequantizeCheckpoint(const fs::path& src, const fs::path& dst, DType dtype, const DequantizeOptions& options) {
  return CatchOutOfMemory([&] { return Dequantize(src, dst, dtype, options); });
}

}  // namespace billfish
