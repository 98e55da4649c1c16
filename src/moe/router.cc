#include <fmt/format.h>

#include <optional>
#include <utility>

#include "billfish/moe.h"
#include "core/status_macros.h"
#include "cuda/route.h"

namespace billfish {

struct Router::Impl {
  RouterRule rule;
  Device device;
  std::optional<cuda::Router> gpu;

  Status CheckOperands(const ConstTensorView& logits, const ConstTensorView& token_ids, const Routing& out) const;
};

Router::Router() = default;
Router::~Router() = default;
Router::Router(Router&&) noexcept = default;
Router& Router::operator=(Router&&) noexcept = default;

Result<Router> Router::Create(RouterRule rule, Device device) {
  BILLFISH_RETURN_IF_ERROR(rule.Validate());
  Router router;
  router.impl_ = std::make_unique<Impl>();
  if (device.kind == Device::Kind::kCuda) {
    BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuDevice::Get(device.index));
    BILLFISH_ASSIGN_OR_RETURN(router.impl_->gpu, cuda::Router::Create(rule, *gpu));
  }
  router.impl_->rule = std::move(rule);
  router.impl_->device = device;
  return router;
}

Status Router::Impl::CheckOperands(const ConstTensorView& logits, const ConstTensorView& token_ids, const Routing& out) const {
  const int64_t T = logits.rank() == 2 ? logits.dim(0) : -1;
  const auto is_slots = [&](const TensorView& view, DType dtype) {
    return view.rank() == 2 && view.dtype() == dtype && view.dim(0) == T && view.dim(1) == rule.top_k && view.is_contiguous();
  };
  if (T < 0 || logits.dtype() != DType::kF32 || logits.dim(1) != rule.E || (rule.E > 1 && logits.stride(1) != 1) ||
      !is_slots(out.ids, DType::kI32) || !is_slots(out.weights, DType::kF32)) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("Router: logits are {}, ids {} and weights {}; give f32[T, {}], contiguous i32[T, {}] and f32[T, {}]",
                        logits.ToString(), out.ids.ToString(), out.weights.ToString(), rule.E, rule.top_k, rule.top_k)};
  }
  if (!rule.hash_table.empty() &&
      (token_ids.rank() != 1 || token_ids.dtype() != DType::kI32 || token_ids.dim(0) != T || !token_ids.is_contiguous())) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("Router: it routes by token id and token ids are {}; give contiguous i32[{}]", token_ids.ToString(), T)};
  }
  const bool placed = logits.device() == device && out.ids.device() == device && out.weights.device() == device &&
                      (rule.hash_table.empty() || token_ids.device() == device);
  if (placed) return OkStatus();
  return {ErrorCode::kInvalidArgument,
          fmt::format("Router: an operand lies on another device; this router runs on {}, copy it there",
                      device.kind == Device::Kind::kCpu ? std::string("the cpu") : fmt::format("cuda:{}", device.index))};
}

Status Router::Forward(ConstTensorView logits, ConstTensorView token_ids, Routing out, ExecContext& ctx) const {
  if (impl_ == nullptr) return {ErrorCode::kInvalidArgument, "Router: it holds no rule; make it with Router::Create"};
  BILLFISH_RETURN_IF_ERROR(impl_->CheckOperands(logits, token_ids, out));
  const bool hashed = !impl_->rule.hash_table.empty();
  const auto T = static_cast<size_t>(logits.dim(0));
  if (T == 0) return OkStatus();
  if (!impl_->gpu) {
    return RouteTopK(logits, impl_->rule, hashed ? std::span(token_ids.as<int32_t>(), T) : std::span<const int32_t>(), out, ctx);
  }
  return impl_->gpu->Run(logits.as<float>(), logits.stride(0), logits.dim(0), hashed ? token_ids.as<int32_t>() : nullptr,
                         out.ids.as<int32_t>(), out.weights.as<float>(), static_cast<cuda::CUstream>(ctx.stream));
}

size_t Router::WorkspaceBytes(int64_t T) const { return impl_ == nullptr || impl_->gpu ? 0 : RouteWorkspaceBytes(T, impl_->rule); }

const RouterRule& Router::rule() const {
  static const RouterRule none{};
  return impl_ == nullptr ? none : impl_->rule;
}

}  // namespace billfish
