#include "cuda/nvrtc.h"

#include <fmt/format.h>

#include "cuda/library_search.h"

namespace billfish::cuda {
namespace {

constexpr const char* kAdvice =
    "install it with `pip install nvidia-cuda-nvrtc` or from the CUDA toolkit 12.0 or later, or name the file in BILLFISH_NVRTC";
constexpr const char* kNoVersion = "does not tell its version";

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
  NvrtcApi api;
  const Result<std::string> opened = OpenFirst(candidates, [&api](void* library) -> std::string {
    api = {};
    const char* missing = nullptr;
#define BILLFISH_RESOLVE(member, symbol, parameters) Resolve(library, symbol, api.member, missing);
    BILLFISH_NVRTC_API(BILLFISH_RESOLVE)
#undef BILLFISH_RESOLVE
    if (missing != nullptr) return fmt::format("has no {}", missing);
    int count = 0;
    if (api.Version(&api.major, &api.minor) != 0 || api.GetNumSupportedArchs(&count) != 0) return kNoVersion;
    api.supported.resize(static_cast<size_t>(count));
    return api.GetSupportedArchs(api.supported.data()) == 0 ? "" : kNoVersion;
  });
  if (!opened.ok()) {
    return Status(ErrorCode::kNotFound,
                  fmt::format("a GPU kernel must be compiled, but NVRTC cannot be opened ({}); {}", opened.error().message(), kAdvice));
  }
  api.path = opened.value();
  return api;
}

}  // namespace billfish::cuda
