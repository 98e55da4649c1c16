#include "cuda/gather_columns.h"

#include <fmt/format.h>

#include <array>

#include "core/rounding.h"
#include "core/status_macros.h"

namespace billfish::cuda {
namespace {

constexpr int64_t kThreads = 256;
constexpr int64_t kRows = 8;  // of gather_columns.cu
constexpr int64_t kMostRowBlocks = 65535;

KernelSpec Spec() { return {.file = "gather_columns.cu", .function = "gather_columns"}; }

}  // namespace

Result<GatherColumns> GatherColumns::Create(const GpuDevice& device) {
  GatherColumns gather;
  BILLFISH_ASSIGN_OR_RETURN(gather.kernel_, LoadKernel(Spec(), device));
  return gather;
}

Status GatherColumns::Run(const void* x, int64_t x_stride, const int32_t* perm, void* y, int64_t M, int64_t K, CUstream stream) const {
  if (M == 0) return OkStatus();
  if (M > kMostRowBlocks * kRows) {
    return {ErrorCode::kUnsupported,
            fmt::format("{} rows were given to an act-order weight; it takes {} at a time: split the batch", M, kMostRowBlocks * kRows)};
  }
  LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(DivideUp(K, kThreads));
  shape.grid_y = static_cast<uint32_t>(DivideUp(M, kRows));
  shape.threads = kThreads;
  shape.dependent = true;
  std::array<void*, 6> parameters = {&x, &x_stride, &perm, &y, &M, &K};
  return Launch(kernel_, shape, stream, parameters);
}

void AppendGatherColumnsSpecs(Arch, std::vector<KernelSpec>& specs) { specs.push_back(Spec()); }

}  // namespace billfish::cuda
