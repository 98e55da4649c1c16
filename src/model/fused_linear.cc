#include "model/fused_linear.h"

#include <algorithm>

#include "core/status_macros.h"

namespace billfish::model {

namespace {

// All parts as one, without weight.
FusedLinear::Part Join(const std::string& name, const std::vector<FusedLinear::Part>& parts) {
  FusedLinear::Part joined{name, 0, {}, {}};
  const bool biased = std::any_of(parts.begin(), parts.end(), [](const FusedLinear::Part& part) { return !part.bias.empty(); });
  for (const FusedLinear::Part& part : parts) {
    joined.N += part.N;
    joined.bias.insert(joined.bias.end(), part.bias.begin(), part.bias.end());
    if (biased) joined.bias.resize(static_cast<size_t>(joined.N));  // a part without bias adds zero
  }
  return joined;
}

}  // namespace

Status FusedLinear::Add(const Part& part, const ModelOptions& options, KernelWish& wish, const PanelStore* store,
                        FunctionRef<Result<Linear>(const LinearOptions&)> create) {
  LinearOptions linear_options;
  linear_options.activation = options.activation;
  linear_options.mode = options.mode;
  linear_options.device = options.device;
  linear_options.panels = {store, part.name};
  if (!part.bias.empty()) linear_options.bias = ConstTensorView(part.bias.data(), DType::kF32, {part.N});
  Result<Linear> linear = wish.Grant([&](const std::string& kernel) {
    linear_options.kernel = kernel;
    return create(linear_options);
  });
  if (!linear.ok()) return linear.error().WithContext(part.name);
  n_ += part.N;
  pieces_.push_back({part.name, std::move(*linear), {}, {}});
  return OkStatus();
}

Result<FusedLinear> FusedLinear::Create(const std::string& name, std::vector<Part> parts, const ModelOptions& options, KernelWish& wish,
                                        const PanelStore* store) {
  if (parts.size() > 1) {
    std::vector<PackedWeight> weights;
    weights.reserve(parts.size());
    for (const Part& part : parts) weights.push_back(part.weight);
    const bool same_scheme =
        std::all_of(weights.begin(), weights.end(), [&](const PackedWeight& w) { return w.scheme() == weights[0].scheme(); });
    if (same_scheme) {
      if (Result<PackedWeight> all = PackedWeight::ConcatRows(weights); all.ok()) {
        Part joined = Join(name, parts);
        joined.weight = std::move(*all);
        parts.clear();
        parts.push_back(std::move(joined));
      }
    }
  }
  FusedLinear fused;
  for (const Part& part : parts) {
    std::optional<CudaPlainLinear> plain;
    const bool replaces = CudaPlainLinear::Replaces(part.weight.scheme());
    if (options.device.kind == Device::Kind::kCuda && (replaces || CudaPlainLinear::HelpsFewRows(part.weight))) {
      Result<CudaPlainLinear> made = CudaPlainLinear::Create(part.weight, part.bias, options.device);
      if (!made.ok()) return made.error().WithContext(part.name);
      plain = std::move(*made);
    }
    if (plain && replaces) {
      fused.n_ += part.N;
      fused.pieces_.push_back({part.name, std::nullopt, std::move(plain), part.weight.scheme().Name()});
      continue;
    }
    BILLFISH_RETURN_IF_ERROR(fused.Add(part, options, wish, store,
                                       [&](const LinearOptions& linear_options) { return Linear::Create(part.weight, linear_options); }));
    fused.pieces_.back().plain = std::move(plain);
  }
  return fused;
}

Result<FusedLinear> FusedLinear::Map(const std::string& name, const std::vector<Part>& parts, const ModelOptions& options, KernelWish& wish,
                                     const PanelStore& store) {
  const auto map = [](const LinearOptions& linear_options) { return Linear::Map(linear_options); };
  FusedLinear fused;
  if (parts.size() > 1) {
    const Status status = fused.Add(Join(name, parts), options, wish, &store, map);
    if (status.ok()) return fused;
    if (status.code() != ErrorCode::kNotFound) return status;
  }
  for (const Part& part : parts) BILLFISH_RETURN_IF_ERROR(fused.Add(part, options, wish, &store, map));
  return fused;
}

Status FusedLinear::Forward(ConstTensorView x, TensorView y, ExecContext& ctx) const {
  int64_t column = 0;
  for (const Piece& piece : pieces_) {
    const int64_t rows = piece.N();
    TensorView part(y.as<float>() + column, DType::kF32, {y.dim(0), rows}, y.device());
    const int64_t strides[] = {y.stride(0), 1};
    part.set_strides(strides);
    const bool plain = piece.plain && (!piece.linear || x.dim(0) <= CudaPlainLinear::kFewRows);
    const Status status = plain ? piece.plain->Forward(x, part, ctx.stream) : piece.linear->Forward(x, part, ctx);
    if (!status.ok()) return status.WithContext(piece.name);
    column += rows;
  }
  return OkStatus();
}

size_t FusedLinear::WorkspaceBytes(int64_t M) const {
  size_t bytes = 0;
  for (const Piece& piece : pieces_) {
    if (piece.linear) bytes = std::max(bytes, piece.linear->WorkspaceBytes(M));
  }
  return bytes;
}

void FusedLinear::Summarise(std::vector<ModuleSummary>& modules) const {
  for (const Piece& piece : pieces_) {
    if (!piece.linear) {
      modules.push_back({piece.name, piece.plain_scheme, std::string(CudaPlainLinear::kName), 1, piece.plain->N(), piece.plain->K(),
                         piece.plain->bytes(), piece.plain->weight_bytes()});
      continue;
    }
    modules.push_back({piece.name, piece.linear->scheme().Name(), std::string(piece.linear->kernel()), 1, piece.linear->N(),
                       piece.linear->K(), piece.linear->bytes(), piece.linear->weight_bytes()});
  }
}

}  // namespace billfish::model
