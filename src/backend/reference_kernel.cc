#include "backend/reference_kernel.h"

#include <algorithm>

#include "core/float_formats.h"
#include "core/parallel.h"
#include "format/row_decoder.h"

namespace billfish::backend {
namespace {

class ReferenceKernel final : public Kernel {
 public:
  ReferenceKernel(std::string_view name, const PackedWeight& weight, std::vector<float> bias)
      : name_(name), weight_(weight), bias_(std::move(bias)) {}

  std::string_view name() const override { return name_; }
  size_t bytes() const override { return weight_.bytes(); }

  size_t WorkspaceBytes(int64_t, int threads) const override { return static_cast<size_t>(threads) * RowBytes() + alignof(float); }

  Status Run(const Call& call) const override {
    const int threads = static_cast<int>(std::min<int64_t>(call.threads, weight_.N()));
    // One decoded row for each thread.
    const auto address = reinterpret_cast<uintptr_t>(call.workspace.data());
    auto* rows = reinterpret_cast<float*>(call.workspace.data() + (alignof(float) - address % alignof(float)) % alignof(float));
    RunOnThreads(threads, [&](int thread) {
      const std::span<float> w(rows + thread * weight_.K(), static_cast<size_t>(weight_.K()));
      for (int64_t e = 0; e < weight_.E(); ++e) {
        const int64_t begin = call.offsets.empty() ? 0 : call.offsets[static_cast<size_t>(e)];
        const int64_t end = call.offsets.empty() ? call.rows : call.offsets[static_cast<size_t>(e) + 1];
        if (begin == end) continue;
        for (int64_t n = thread; n < weight_.N(); n += threads) {
          format::DecodeRow(weight_, e, n, w);
          for (int64_t r = begin; r < end; ++r) Store(call.y, r, n, Dot(w, e, call, r) + Bias(e, n));
        }
      }
    });
    return OkStatus();
  }

 private:
  size_t RowBytes() const { return static_cast<size_t>(weight_.K()) * sizeof(float); }

  double Dot(std::span<const float> w, int64_t e, const Call& call, int64_t r) const {
    const int64_t K = weight_.K();
    const int64_t first = (call.source != nullptr ? call.source[r] : r) * call.x.stride(0);
    const std::vector<int32_t>& perm = weight_.parts().perm;
    double sum = 0;
    for (int64_t j = 0; j < K; ++j) {
      const int64_t k = first + (perm.empty() ? j : perm[static_cast<size_t>(e * K + j)]);
      const float x = call.x.dtype() == DType::kF32 ? call.x.as<float>()[k] : F32FromBF16(call.x.as<uint16_t>()[k]);
      sum += static_cast<double>(w[static_cast<size_t>(j)]) * x;
    }
    return sum;
  }

  double Bias(int64_t e, int64_t n) const { return bias_.empty() ? 0.0 : bias_[static_cast<size_t>(e * weight_.N() + n)]; }

  static void Store(const TensorView& y, int64_t r, int64_t n, double value) {
    const int64_t i = r * y.stride(0) + n;
    if (y.dtype() == DType::kF32) {
      y.as<float>()[i] = static_cast<float>(value);
    } else {
      y.as<uint16_t>()[i] = BF16FromF32(static_cast<float>(value));
    }
  }

  std::string_view name_;
  PackedWeight weight_;
  std::vector<float> bias_;
};

}  // namespace

std::unique_ptr<Kernel> MakeReferenceKernel(std::string_view name, const PackedWeight& weight, std::vector<float> bias) {
  return std::make_unique<ReferenceKernel>(name, weight, std::move(bias));
}

}  // namespace billfish::backend
