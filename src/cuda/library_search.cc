#include "cuda/library_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "cuda/driver_api.h"

namespace billfish::cuda {
namespace {

namespace fs = std::filesystem;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The folders below `root` (…/lib) where the packages of pip put the library.
std::vector<fs::path> PythonFolders(const fs::path& root, std::span<const char* const> packages) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (const auto& python : fs::directory_iterator(root, error)) {
    if (python.path().filename().string().rfind("python3", 0) != 0) continue;
    for (const char* site : {"site-packages", "dist-packages"}) {
      for (const char* package : packages) folders.push_back(python.path() / site / "nvidia" / package / "lib");
    }
  }
  return folders;
}

std::vector<fs::path> Folders(std::span<const char* const> packages) {
  std::vector<fs::path> folders;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  if (!program.empty()) folders.insert(folders.end(), {program, program / "../lib"});
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const std::string home = Environment(variable); !home.empty()) folders.push_back(fs::path(home) / "lib64");
  }
  folders.emplace_back("/usr/local/cuda/lib64");
  std::vector<fs::path> python_roots;
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const std::string prefix = Environment(variable); !prefix.empty()) {
      folders.push_back(fs::path(prefix) / "lib");
      python_roots.push_back(fs::path(prefix) / "lib");
    }
  }
  const std::string path = Environment("PATH");
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find(':', begin), path.size());
    const fs::path bin = path.substr(begin, end - begin);
    if (fs::exists(bin / "python3", error)) python_roots.push_back(bin.parent_path() / "lib");
    begin = end + 1;
  }
  if (const std::string home = Environment("HOME"); !home.empty()) python_roots.push_back(fs::path(home) / ".local/lib");
  for (const fs::path& root : python_roots) {
    const std::vector<fs::path> found = PythonFolders(root, packages);
    folders.insert(folders.end(), found.begin(), found.end());
  }
  return folders;
}

}  // namespace

std::vector<std::string> LibraryCandidates(const char* chosen_by, std::span<const std::string> names,
                                           std::span<const char* const> packages) {
  std::error_code error;
  std::vector<std::string> candidates;
  if (const std::string chosen = Environment(chosen_by); !chosen.empty()) {
    if (!fs::is_directory(chosen, error)) return {chosen};
    for (const std::string& name : names) candidates.push_back((fs::path(chosen) / name).string());
    return candidates;
  }
  candidates.assign(names.begin(), names.end());  // as the loader finds them: LD_LIBRARY_PATH, ld.so.cache
  for (const fs::path& folder : Folders(packages)) {
    for (const std::string& name : names) {
      const std::string file = (folder / name).string();
      if (fs::exists(file, error) && std::find(candidates.begin(), candidates.end(), file) == candidates.end()) candidates.push_back(file);
    }
  }
  return candidates;
}

std::vector<std::string> VersionedNames(const std::string& name) {
  int driver_version = 0;
  if (const auto driver = Driver(); driver.ok() && driver.value()->DriverGetVersion(&driver_version) != kCudaSuccess) driver_version = 0;
  // Code of a newer major version than the driver's does not load.
  if (driver_version != 0 && driver_version < 13000) return {name + ".12", name + ".13", name};
  return {name + ".13", name + ".12", name};
}

Result<std::string> OpenFirst(std::span<const std::string> candidates, const std::function<std::string(void* library)>& refusal) {
  std::string reasons;
  for (const std::string& candidate : candidates) {
    const char* separator = reasons.empty() ? "" : "; ";
    void* library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      reasons += fmt::format("{}{}", separator, dlerror());
      continue;
    }
    const std::string why = refusal(library);
    if (why.empty()) return candidate;
    reasons += fmt::format("{}{}: {}", separator, candidate, why);
    dlclose(library);
  }
  return Status(ErrorCode::kNotFound, reasons);
}

}  // namespace billfish::cuda
