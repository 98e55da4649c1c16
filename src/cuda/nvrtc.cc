#include "cuda/nvrtc.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "core/status_macros.h"
#include "cuda/driver_api.h"

namespace billfish::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* kAdvice =
    "install it with `pip install nvidia-cuda-nvrtc` or from the CUDA toolkit 12.0 or later, or name the file in BILLFISH_NVRTC";

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A cubin needs a driver of at least its compiler's major version.
std::vector<std::string> FileNames() {
  int driver_version = 0;
  if (const auto driver = Driver(); driver.ok() && driver.value()->DriverGetVersion(&driver_version) != kCudaSuccess) driver_version = 0;
  if (driver_version != 0 && driver_version < 13000) return {"libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"};
  return {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
}

// The folders below `root` (…/lib) where the packages of pip put the library.
std::vector<fs::path> PythonFolders(const fs::path& root) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (const auto& python : fs::directory_iterator(root, error)) {
    if (python.path().filename().string().rfind("python3", 0) != 0) continue;
    for (const char* packages : {"site-packages", "dist-packages"}) {
      for (const char* package : {"cu13", "cuda_nvrtc"}) folders.push_back(python.path() / packages / "nvidia" / package / "lib");
    }
  }
  return folders;
}

std::vector<fs::path> Folders() {
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
    const std::vector<fs::path> found = PythonFolders(root);
    folders.insert(folders.end(), found.begin(), found.end());
  }
  return folders;
}

}  // namespace

Result<const NvrtcApi*> Nvrtc() {
  static const Result<NvrtcApi> nvrtc = OpenNvrtc(NvrtcCandidates());
  if (!nvrtc.ok()) return nvrtc.error();
  return &nvrtc.value();
}

std::vector<std::string> NvrtcCandidates() {
  const std::vector<std::string> names = FileNames();
  std::error_code error;
  std::vector<std::string> candidates;
  if (const std::string chosen = Environment("BILLFISH_NVRTC"); !chosen.empty()) {
    if (!fs::is_directory(chosen, error)) return {chosen};
    for (const std::string& name : names) candidates.push_back((fs::path(chosen) / name).string());
    return candidates;
  }
  candidates = names;  // as the loader finds them: LD_LIBRARY_PATH, ld.so.cache
  for (const fs::path& folder : Folders()) {
    for (const std::string& name : names) {
      const std::string file = (folder / name).string();
      if (fs::exists(file, error) && std::find(candidates.begin(), candidates.end(), file) == candidates.end()) candidates.push_back(file);
    }
  }
  return candidates;
}

Result<NvrtcApi> OpenNvrtc(const std::vector<std::string>& candidates) {
  std::string reasons;
  for (const std::string& candidate : candidates) {
    void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      reasons += fmt::format("{}{}", reasons.empty() ? "" : "; ", dlerror());
      continue;
    }
    NvrtcApi api;
    const char* missing = nullptr;
#define BILLFISH_RESOLVE(member, symbol, parameters)                          \
  api.member = reinterpret_cast<decltype(api.member)>(dlsym(handle, symbol)); \
  if (api.member == nullptr && missing == nullptr) missing = symbol;
    BILLFISH_NVRTC_API(BILLFISH_RESOLVE)
#undef BILLFISH_RESOLVE
    int count = 0;
    if (missing == nullptr && api.Version(&api.major, &api.minor) == 0 && api.GetNumSupportedArchs(&count) == 0) {
      api.supported.resize(static_cast<size_t>(count));
      if (api.GetSupportedArchs(api.supported.data()) == 0) {
        api.path = candidate;
        return api;
      }
    }
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", candidate,
                           missing != nullptr ? fmt::format("has no {}", missing) : std::string("does not tell its version"));
    dlclose(handle);
  }
  return Status(ErrorCode::kNotFound, fmt::format("a GPU kernel must be compiled, but NVRTC cannot be opened ({}); {}", reasons, kAdvice));
}

}  // namespace billfish::cuda
