#include <fmt/format.h>

#include <array>
#include <vector>

#include "billfish/context.h"
#include "billfish/weight.h"
#include "core/float_formats.h"
#include "core/parallel.h"
#include "format/row_decoder.h"

namespace billfish {
namespace {

bool HasShape(const ConstTensorView& view, int64_t E, int64_t N, int64_t K) {
  if (view.rank() == 3) return view.dim(0) == E && view.dim(1) == N && view.dim(2) == K;
  return view.rank() == 2 && E == 1 && view.dim(0) == N && view.dim(1) == K;
}

}  // namespace

Status PackedWeight::Dequantize(TensorView out) const {
  if (out.dtype() != DType::kF32 && out.dtype() != DType::kBF16) {
    return {ErrorCode::kInvalidArgument, fmt::format("a weight dequantises to f32 or bf16; {} was given", out.ToString())};
  }
  if (!HasShape(out, E_, N_, K_) || !out.is_contiguous()) {
    return {ErrorCode::kShapeMismatch, fmt::format("a weight [{}, {}, {}] dequantises into a contiguous tensor of that shape; {} was given",
                                                   E_, N_, K_, out.ToString())};
  }
  const bool to_bf16 = out.dtype() == DType::kBF16;
  ParallelFor(DefaultThreads(), E_ * N_, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> stored(static_cast<size_t>(K_));
    for (int64_t row = begin; row < end; ++row) {
      format::DecodeRow(*this, row / N_, row % N_, stored);
      const int32_t* perm = parts_.perm.empty() ? nullptr : parts_.perm.data() + row / N_ * K_;
      for (int64_t j = 0; j < K_; ++j) {
        const int64_t place = row * K_ + (perm != nullptr ? perm[j] : j);
        if (to_bf16) {
          out.as<uint16_t>()[place] = BF16FromF32(stored[static_cast<size_t>(j)]);
        } else {
          out.as<float>()[place] = stored[static_cast<size_t>(j)];
        }
      }
    }
  });
  return OkStatus();
}

}  // namespace billfish
