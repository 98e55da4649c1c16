#include "model/fused_linear.h"

#include <algorithm>

#include "core/status_macros.h"

namespace billfish::model {

Result<FusedLinear> FusedLinear::Create(const std::string& name, std::vector<Part> parts, const ModelOptions& options, KernelWish& wish) {
  FusedLinear fused;
  if (parts.size() > 1) {
    std::vector<PackedWeight> weights;
    weights.reserve(parts.size());
    for (const Part& part : parts) weights.push_back(part.weight);
    const bool same_scheme =
        std::all_of(weights.begin(), weights.end(), [&](const PackedWeight& w) { return w.scheme() == weights[0].scheme(); });
    if (same_scheme) {
      if (Result<PackedWeight> all = PackedWeight::ConcatRows(weights); all.ok()) {
        Part joined{name, 0, std::move(*all), {}};
        const bool biased = std::any_of(parts.begin(), parts.end(), [](const Part& part) { return !part.bias.empty(); });
        for (const Part& part : parts) {
          joined.N += part.N;
          joined.bias.insert(joined.bias.end(), part.bias.begin(), part.bias.end());
          if (biased) joined.bias.resize(static_cast<size_t>(joined.N));  // a part without bias adds zero
        }
        parts.clear();
        parts.push_back(std::move(joined));
      }
    }
  }
  for (Part& part : parts) {
    LinearOptions linear_options;
    linear_options.activation = options.activation;
    linear_options.mode = options.mode;
    if (!part.bias.empty()) linear_options.bias = ConstTensorView(part.bias.data(), DType::kF32, {part.N});
    Result<Linear> linear = wish.Grant([&](const std::string& kernel) {
      linear_options.kernel = kernel;
      return Linear::Create(part.weight, linear_options);
    });
    if (!linear.ok()) return linear.error().WithContext(part.name);
    fused.n_ += part.N;
    fused.pieces_.push_back({part.name, part.weight.scheme().Name(), std::move(*linear)});
  }
  return fused;
}

Status FusedLinear::Forward(ConstTensorView x, TensorView y, ExecContext& ctx) const {
  int64_t column = 0;
  for (const Piece& piece : pieces_) {
    const int64_t rows = piece.linear.N();
    TensorView part(y.as<float>() + column, DType::kF32, {y.dim(0), rows});
    const int64_t strides[] = {y.stride(0), 1};
    part.set_strides(strides);
    if (Status status = piece.linear.Forward(x, part, ctx); !status.ok()) return status.WithContext(piece.name);
    column += rows;
  }
  return OkStatus();
}

size_t FusedLinear::WorkspaceBytes(int64_t M) const {
  size_t bytes = 0;
  for (const Piece& piece : pieces_) bytes = std::max(bytes, piece.linear.WorkspaceBytes(M));
  return bytes;
}

void FusedLinear::Summarise(std::vector<ModuleSummary>& modules) const {
  for (const Piece& piece : pieces_) {
    modules.push_back({piece.name, piece.scheme, std::string(piece.linear.kernel()), 1, piece.linear.N(), piece.linear.K(),
                       piece.linear.bytes(), piece.linear.weight_bytes()});
  }
}

}  // namespace billfish::model
