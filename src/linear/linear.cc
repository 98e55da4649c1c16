#include "billfish/linear.h"

#include <fmt/format.h>

#include "core/status_macros.h"
#include "linear/linear_impl.h"

namespace billfish {
namespace {

constexpr std::string_view kLayer = "Linear";
constexpr QuantScheme kNoScheme;

}  // namespace

Linear::Linear() = default;
Linear::~Linear() = default;
Linear::Linear(Linear&&) noexcept = default;
Linear& Linear::operator=(Linear&&) noexcept = default;

Result<Linear> Linear::Create(const PackedWeight& weight, const LinearOptions& options) {
  Linear linear;
  BILLFISH_ASSIGN_OR_RETURN(linear.impl_, Impl::Create(Op::kLinear, weight, options));
  return linear;
}

Result<Linear> Linear::Map(const LinearOptions& options) {
  Linear linear;
  BILLFISH_ASSIGN_OR_RETURN(linear.impl_, Impl::Map(Op::kLinear, options));
  return linear;
}

Status Linear::Forward(ConstTensorView x, TensorView y, ExecContext& ctx) const {
  if (impl_ == nullptr) return {ErrorCode::kInvalidArgument, "Linear: it holds no weight; make it with Linear::Create"};
  BILLFISH_RETURN_IF_ERROR(impl_->CheckOperands(kLayer, x, y));
  if (x.dim(0) != y.dim(0)) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("{}: x is {} and y is {}; give both the same number of rows", kLayer, x.ToString(), y.ToString())};
  }
  if (y.dim(0) == 0) return OkStatus();
  return impl_->Run(kLayer, x, {}, {}, y, ctx);
}

size_t Linear::WorkspaceBytes(int64_t M) const { return impl_ == nullptr ? 0 : impl_->WorkspaceBytes(M); }
int64_t Linear::N() const { return impl_ == nullptr ? 0 : impl_->N; }
int64_t Linear::K() const { return impl_ == nullptr ? 0 : impl_->K; }
const QuantScheme& Linear::scheme() const { return impl_ == nullptr ? kNoScheme : impl_->scheme; }
std::string_view Linear::kernel() const { return impl_ == nullptr ? std::string_view() : impl_->kernel->name(); }
size_t Linear::bytes() const { return impl_ == nullptr ? 0 : impl_->kernel->bytes(); }
size_t Linear::weight_bytes() const { return impl_ == nullptr ? 0 : impl_->weight_bytes; }

}  // namespace billfish
