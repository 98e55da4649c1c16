#include "cuda/route.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/rounding.h"
#include "core/status_macros.h"

namespace billfish::cuda {
namespace {

constexpr std::array<int, 4> kLaneValues = {4, 8, 16, 32};
constexpr uint32_t kWarps = 4;  // tokens of a block
constexpr int64_t kMostTopK = 1 << 10;

KernelSpec RouteSpec(int values) {
  KernelSpec spec;
  spec.file = "moe_route.cu";
  spec.function = "moe_route";
  spec.defines = {{"BF_VALUES", std::to_string(values)}};
  spec.shared_bytes = static_cast<uint32_t>(kWarps * kMostTopK * 8);
  return spec;
}

KernelSpec NormRouteSpec(int values) {
  KernelSpec spec;
  spec.file = "norm_route.cu";
  spec.function = "norm_route";
  spec.defines = {{"BF_VALUES", std::to_string(values)}};
  spec.shared_bytes = static_cast<uint32_t>(kNormRouteAhead * kNormRoutePieces + 2 * Router::kMostNormedWidth);
  return spec;
}

template <class T>
Result<DeviceBuffer> Upload(const GpuDevice& device, const std::vector<T>& values, DType dtype) {
  const Device where{Device::Kind::kCuda, device.info().index};
  BILLFISH_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(where, values.size() * sizeof(T)));
  const auto count = static_cast<int64_t>(values.size());
  BILLFISH_RETURN_IF_ERROR(CopyTensor(TensorView(buffer.data(), dtype, {count}, where), ConstTensorView(values.data(), dtype, {count})));
  return buffer;
}

}  // namespace

Result<Router> Router::Create(const RouterRule& rule, const GpuDevice& device) {
  const auto values = std::find_if(kLaneValues.begin(), kLaneValues.end(), [&](int v) { return rule.E <= 32 * v; });
  if (values == kLaneValues.end()) {
    return Status(ErrorCode::kUnsupported, fmt::format("a router on the GPU has at most {} experts and this one has {}; route on the CPU",
                                                       32 * kLaneValues.back(), rule.E));
  }
  if (rule.n_group > kMostRouteGroups) {
    return Status(ErrorCode::kUnsupported, fmt::format("a router on the GPU has at most {} groups and this one has {}; route on the CPU",
                                                       kMostRouteGroups, rule.n_group));
  }
  Router router;
  router.device_ = &device;
  BILLFISH_RETURN_IF_ERROR(device.MakeCurrent());
  BILLFISH_ASSIGN_OR_RETURN(router.kernel_, LoadKernel(RouteSpec(*values), device));
  if (device.arch().major >= 9 && rule.E <= kMostNormedExperts) {
    BILLFISH_ASSIGN_OR_RETURN(router.norm_kernel_, LoadKernel(NormRouteSpec(*values), device));
  }
  RouteArgs& args = router.args_;
  args.E = static_cast<int32_t>(rule.E);
  args.top_k = static_cast<int32_t>(rule.top_k);
  args.n_group = static_cast<int32_t>(rule.n_group);
  args.topk_group = static_cast<int32_t>(rule.topk_group);
  args.score = static_cast<RouteScore>(rule.score);
  args.renormalize = rule.renormalize ? 1 : 0;
  args.routed_scaling = rule.routed_scaling;
  if (!rule.correction.empty()) {
    BILLFISH_ASSIGN_OR_RETURN(router.correction_, Upload(device, rule.correction, DType::kF32));
    args.correction = reinterpret_cast<const float*>(router.correction_.data());
  }
  if (!rule.hash_table.empty()) {
    BILLFISH_ASSIGN_OR_RETURN(router.hash_table_, Upload(device, rule.hash_table, DType::kI32));
    args.hash_table = reinterpret_cast<const int32_t*>(router.hash_table_.data());
    args.vocab = static_cast<int32_t>(static_cast<int64_t>(rule.hash_table.size()) / rule.top_k);
  }
  return router;
}

Status Router::Run(const float* logits, int64_t stride, int64_t T, const int32_t* token_ids, int32_t* ids, float* weights,
                   CUstream stream) const {
  if (T == 0) return OkStatus();
  if (args_.hash_table != nullptr && token_ids == nullptr) {
    return {ErrorCode::kInvalidArgument, fmt::format("hash routing of {} tokens got no token ids; give one for each token", T)};
  }
  BILLFISH_RETURN_IF_ERROR(device_->MakeCurrent());
  RouteArgs args = args_;
  args.logits = logits;
  args.stride = stride;
  args.T = static_cast<int32_t>(T);
  args.token_ids = token_ids;
  args.ids = ids;
  args.weights = weights;
  LaunchShape shape;
  const auto warps = static_cast<uint32_t>(std::min<int64_t>(T, kWarps));
  shape.grid_x = DivideUp(static_cast<uint32_t>(T), warps);
  shape.threads = warps * 32;
  shape.shared_bytes = warps * static_cast<uint32_t>(args.top_k) * 8;
  shape.dependent = device_->arch().major >= 9;
  std::array<void*, 1> parameters = {&args};
  return Launch(kernel_, shape, stream, parameters);
}

Status Router::RunNormed(const NormRouteArgs& args, CUstream stream) const {
  if (args.norm.M == 0) return OkStatus();
  if (args_.hash_table != nullptr && args.route.token_ids == nullptr) {
    return {ErrorCode::kInvalidArgument, fmt::format("hash routing of {} tokens got no token ids; give one for each token", args.norm.M)};
  }
  BILLFISH_RETURN_IF_ERROR(device_->MakeCurrent());
  NormRouteArgs all = args;
  all.route = args_;
  all.route.T = args.norm.M;
  all.route.token_ids = args.route.token_ids;
  all.route.ids = args.route.ids;
  all.route.weights = args.route.weights;
  LaunchShape shape;
  // As many blocks as a cluster may have and experts are there for.
  shape.cluster_x = 1;
  while (static_cast<int>(shape.cluster_x) < std::min(args_.E, kNormRouteCluster)) shape.cluster_x *= 2;
  shape.grid_x = shape.cluster_x;
  const int share = DivideUp(args_.E, static_cast<int>(shape.cluster_x));
  all.tile = std::min(share, kNormRouteExperts);
  shape.grid_y = static_cast<uint32_t>(args.norm.M);
  shape.threads = 32 * kNormRouteWarps;
  constexpr int kColumns = kNormRouteColumns * kNormRouteWarps;
  all.ahead = std::min(DivideUp(args.norm.H, kColumns), kNormRouteAhead);
  shape.shared_bytes = static_cast<uint32_t>(all.ahead * kNormRoutePieces + 2 * args.norm.H);
  shape.dependent = true;
  std::array<void*, 1> parameters = {&all};
  return Launch(*norm_kernel_, shape, stream, parameters);
}

void AppendRouteSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  for (const int values : kLaneValues) specs.push_back(RouteSpec(values));
  for (const int values : kLaneValues) {
    if (arch.major >= 9 && 32 * values <= Router::kMostNormedExperts) specs.push_back(NormRouteSpec(values));
  }
}

}  // namespace billfish::cuda
