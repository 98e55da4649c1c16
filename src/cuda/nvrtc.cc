#include "cuda/nvrtc.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "cuda/library_search.h"

namespace billfish::cuda {
namespace {

constexpr const char* kAdvice =
    "install it with `pip install nvidia-cuda-nvrtc` or from the CUDA toolkit 12.0 or later, or name the file in BILLFISH_NVRTC";

}  // namespace

Result<const NvrtcApi*> Nvrtc() {
  static const auto& nvrtc = *new Result<NvrtcApi>(OpenNvrtc(NvrtcCandidates()));
  if (!nvrtc.ok()) return nvrtc.error();
  return &nvrtc.value();
}

std::vector<std::string> NvrtcCandidates() {
  static constexpr const char* kPackages[] = {"cu13", "cuda_nvrtc"};
  return LibraryCandidates("BILLFISH_NVRTC", VersionedNames("libnvrtc.so"), kPackages);
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
