#include <fmt/format.h>

#include <algorithm>

#include "billfish/linear.h"
#include "core/status_macros.h"
#include "linear/linear_impl.h"

namespace billfish {
namespace {

constexpr std::string_view kLayer = "GroupedLinear";
constexpr QuantScheme kNoScheme;

Status CheckOffsets(std::span<const int64_t> offsets, int64_t E, int64_t rows) {
  if (static_cast<int64_t>(offsets.size()) != E + 1) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("{}: {} offsets were given for {} experts; give {}, the first 0 and the last the rows of y", kLayer, offsets.size(),
                        E, E + 1)};
  }
  if (offsets.front() != 0 || offsets.back() != rows) {
    return {ErrorCode::kShapeMismatch, fmt::format("{}: offsets go from {} to {}; they must go from 0 to the {} rows of y", kLayer,
                                                   offsets.front(), offsets.back(), rows)};
  }
  for (size_t e = 1; e < offsets.size(); ++e) {
    if (offsets[e] >= offsets[e - 1]) continue;
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}: offsets fall from {} to {} at expert {}; they must ascend", kLayer, offsets[e - 1], offsets[e], e - 1)};
  }
  return OkStatus();
}

Status CheckGather(std::span<const int32_t> gather, int64_t rows, int64_t T) {
  if (gather.empty()) {
    if (T == rows) return OkStatus();
    return {ErrorCode::kShapeMismatch, fmt::format("{}: x has {} rows and y has {}; without gather they must be equal", kLayer, T, rows)};
  }
  if (static_cast<int64_t>(gather.size()) != rows) {
    return {ErrorCode::kShapeMismatch,
            fmt::format("{}: gather has {} entries and y has {} rows; give one entry for each row of y", kLayer, gather.size(), rows)};
  }
  const auto bad = std::find_if(gather.begin(), gather.end(), [T](int32_t t) { return t < 0 || t >= T; });
  if (bad == gather.end()) return OkStatus();
  return {ErrorCode::kInvalidArgument,
          fmt::format("{}: gather entry {} is {}; x has rows 0..{}", kLayer, bad - gather.begin(), *bad, T - 1)};
}

}  // namespace

GroupedLinear::GroupedLinear() = default;
GroupedLinear::~GroupedLinear() = default;
GroupedLinear::GroupedLinear(GroupedLinear&&) noexcept = default;
GroupedLinear& GroupedLinear::operator=(GroupedLinear&&) noexcept = default;

Result<GroupedLinear> GroupedLinear::Create(const PackedWeight& weight, const LinearOptions& options) {
  GroupedLinear linear;
  BILLFISH_ASSIGN_OR_RETURN(linear.impl_, Linear::Impl::Create(Op::kGroupedLinear, weight, options));
  return linear;
}

Result<GroupedLinear> GroupedLinear::Map(const LinearOptions& options) {
  GroupedLinear linear;
  BILLFISH_ASSIGN_OR_RETURN(linear.impl_, Linear::Impl::Map(Op::kGroupedLinear, options));
  return linear;
}

Status GroupedLinear::Forward(ConstTensorView x, std::span<const int64_t> offsets, std::span<const int32_t> gather, TensorView y,
                              ExecContext& ctx) const {
  if (impl_ == nullptr) return {ErrorCode::kInvalidArgument, "GroupedLinear: it holds no weight; make it with GroupedLinear::Create"};
  BILLFISH_RETURN_IF_ERROR(impl_->CheckOperands(kLayer, x, y));
  const int64_t rows = y.dim(0);
  if (rows > INT32_MAX || x.dim(0) > INT32_MAX) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}: x is {} and y is {}; a call takes at most 2^31 - 1 rows, use several", kLayer, x.ToString(), y.ToString())};
  }
  BILLFISH_RETURN_IF_ERROR(CheckOffsets(offsets, impl_->E, rows));
  BILLFISH_RETURN_IF_ERROR(CheckGather(gather, rows, x.dim(0)));
  if (rows == 0) return OkStatus();
  return impl_->Run(kLayer, x, offsets, gather, y, ctx);
}

size_t GroupedLinear::WorkspaceBytes(int64_t rows, int64_t) const { return impl_ == nullptr ? 0 : impl_->WorkspaceBytes(rows); }
int64_t GroupedLinear::E() const { return impl_ == nullptr ? 0 : impl_->E; }
int64_t GroupedLinear::N() const { return impl_ == nullptr ? 0 : impl_->N; }
int64_t GroupedLinear::K() const { return impl_ == nullptr ? 0 : impl_->K; }
const QuantScheme& GroupedLinear::scheme() const { return impl_ == nullptr ? kNoScheme : impl_->scheme; }
std::string_view GroupedLinear::kernel() const { return impl_ == nullptr ? std::string_view() : impl_->kernel->name(); }
size_t GroupedLinear::bytes() const { return impl_ == nullptr ? 0 : impl_->kernel->bytes(); }
size_t GroupedLinear::weight_bytes() const { return impl_ == nullptr ? 0 : impl_->weight_bytes; }

}  // namespace billfish
