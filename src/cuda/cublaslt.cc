#include "cuda/cublaslt.h"

#include <fmt/format.h>

#include "billfish/cuda.h"
#include "billfish/cuda_baseline.h"
#include "core/status_macros.h"
#include "cuda/library_search.h"
#include "cuda/stream_context.h"

namespace billfish {
namespace cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;  // at most; 32 MB is what PyTorch allows on Hopper

Result<const CublasLtApi*> CublasLt() {
  static constexpr const char* kPackages[] = {"cu13", "cublas"};
  static const auto& api =
      *new Result<CublasLtApi>(OpenCublasLt(LibraryCandidates("BILLFISH_CUBLASLT", VersionedNames("libcublasLt.so"), kPackages)));
  if (!api.ok()) return api.error();
  return &api.value();
}

Status CheckCublas(CublasResult result, const char* what) {
  if (result == 0) return OkStatus();
  return Status(ErrorCode::kDevice, fmt::format("{} failed in cuBLASLt, status {}", what, result));
}

}  // namespace

Result<CublasLtApi> OpenCublasLt(const std::vector<std::string>& candidates) {
  CublasLtApi api;
  const Result<std::string> opened = OpenFirst(candidates, [&api](void* library) -> std::string {
    const char* missing = nullptr;
#define BILLFISH_RESOLVE(member, symbol, parameters) Resolve(library, symbol, api.member, missing);
    BILLFISH_CUBLASLT_API(BILLFISH_RESOLVE)
#undef BILLFISH_RESOLVE
    return missing == nullptr ? "" : fmt::format("has no {}", missing);
  });
  if (opened.ok()) return api;
  return Status(
      ErrorCode::kNotFound,
      fmt::format("a comparison with cuBLASLt was asked for, but it cannot be opened ({}); install it with `pip install nvidia-cublas` or "
                  "from the CUDA toolkit, or name the file in BILLFISH_CUBLASLT",
                  opened.error().message()));
}

}  // namespace cuda

using cuda::CheckCublas;

struct CublasLinear::Impl {
  explicit Impl(const cuda::CublasLtApi& library) : api(library) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    for (const cuda::CublasLayout layout : {w, x, y}) {
      if (layout != nullptr) api.LayoutDestroy(layout);
    }
    if (desc != nullptr) api.DescDestroy(desc);
    if (handle != nullptr) api.Destroy(handle);
  }

  const cuda::CublasLtApi& api;
  Device device;
  cuda::CublasHandle handle = nullptr;
  cuda::CublasDesc desc = nullptr;
  cuda::CublasLayout w = nullptr, x = nullptr, y = nullptr;
  cuda::CublasAlgorithm algorithm{};
  DeviceBuffer workspace;
};

CublasLinear::CublasLinear() = default;
CublasLinear::CublasLinear(CublasLinear&&) noexcept = default;
CublasLinear& CublasLinear::operator=(CublasLinear&&) noexcept = default;
CublasLinear::~CublasLinear() = default;

Result<CublasLinear> CublasLinear::Create(Device device, int64_t M, int64_t N, int64_t K) {
  if (M < 1 || N < 1 || K < 1) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("the cuBLASLt product needs M, N and K of at least 1, got {}, {} and {}", M, N, K));
  }
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuOf(device, "a cuBLASLt product"));
  BILLFISH_RETURN_IF_ERROR(gpu->MakeCurrent());
  BILLFISH_ASSIGN_OR_RETURN(const cuda::CublasLtApi* api, cuda::CublasLt());
  CublasLinear linear;
  linear.impl_ = std::make_unique<Impl>(*api);
  Impl& impl = *linear.impl_;
  impl.device = device;
  // cuBLAS counts columns first, where row-major x[M,K], W[N,K] and y[M,N] are K x M, K x N and N x M: y = (W)^T . x.
  const auto m = static_cast<uint64_t>(M), n = static_cast<uint64_t>(N), k = static_cast<uint64_t>(K);
  const int32_t transpose = cuda::kCublasTranspose;
  BILLFISH_RETURN_IF_ERROR(CheckCublas(api->Create(&impl.handle), "opening a handle"));
  BILLFISH_RETURN_IF_ERROR(CheckCublas(api->DescCreate(&impl.desc, cuda::kCublasCompute32F, cuda::kCublasRealF32), "describing a product"));
  BILLFISH_RETURN_IF_ERROR(
      CheckCublas(api->DescSetAttribute(impl.desc, cuda::kCublasDescTransA, &transpose, sizeof(transpose)), "describing a product"));
  BILLFISH_RETURN_IF_ERROR(CheckCublas(api->LayoutCreate(&impl.w, cuda::kCublasRealBF16, k, n, K), "describing the weight"));
  BILLFISH_RETURN_IF_ERROR(CheckCublas(api->LayoutCreate(&impl.x, cuda::kCublasRealBF16, k, m, K), "describing the activations"));
  BILLFISH_RETURN_IF_ERROR(CheckCublas(api->LayoutCreate(&impl.y, cuda::kCublasRealBF16, n, m, N), "describing the result"));
  cuda::CublasPreference preference = nullptr;
  BILLFISH_RETURN_IF_ERROR(CheckCublas(api->PreferenceCreate(&preference), "describing a preference"));
  cuda::CublasHeuristic best{};
  int found = 0;
  cuda::CublasResult result =
      api->PreferenceSetAttribute(preference, cuda::kCublasPreferenceMaxWorkspace, &cuda::kWorkspaceBytes, sizeof(cuda::kWorkspaceBytes));
  if (result == 0) result = api->GetHeuristic(impl.handle, impl.desc, impl.w, impl.x, impl.y, impl.y, preference, 1, &best, &found);
  api->PreferenceDestroy(preference);
  if (result != 0 || found == 0) {
    return Status(ErrorCode::kUnsupported, fmt::format("cuBLASLt has no bf16 algorithm for M={} N={} K={} (status {})", M, N, K, result));
  }
  impl.algorithm = best.algorithm;
  BILLFISH_ASSIGN_OR_RETURN(impl.workspace, DeviceBuffer::Allocate(device, best.workspace_bytes));
  return linear;
}

Status CublasLinear::Forward(const void* x, const void* w, void* y, CudaStream stream) const {
  if (impl_ == nullptr) return Status(ErrorCode::kInvalidArgument, "an empty CublasLinear was called; make one with CublasLinear::Create");
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuDevice::Get(impl_->device.index));
  BILLFISH_RETURN_IF_ERROR(gpu->MakeCurrent());
  const float one = 1, zero = 0;
  return CheckCublas(
      impl_->api.Matmul(impl_->handle, impl_->desc, &one, w, impl_->w, x, impl_->x, &zero, y, impl_->y, y, impl_->y, &impl_->algorithm,
                        impl_->workspace.data(), impl_->workspace.bytes(), static_cast<cuda::CUstream>(stream)),
      "a product");
}

}  // namespace billfish
