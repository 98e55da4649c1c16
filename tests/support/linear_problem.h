// A weight, activations and the expected product with the magnitudes that the tolerance is derived from.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "billfish/linear.h"
#include "support/numeric.h"
#include "support/random_tensor.h"

namespace billfish::test {

inline std::vector<float> DecodedF32(const PackedWeight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.E() * weight.N() * weight.K()));
  if (!weight.Dequantize(TensorView(values.data(), DType::kF32, {weight.E(), weight.N(), weight.K()})).ok()) values.clear();
  return values;
}

/// Rows of x times W[expert of the row], fp64, straight from the decoded weight. bias is empty or [E,N].
inline Expected Multiply(const PackedWeight& weight, const std::vector<float>& x, const std::vector<int64_t>& offsets,
                         const std::vector<int32_t>& gather, const std::vector<float>& bias) {
  const int64_t N = weight.N(), K = weight.K(), rows = offsets.back();
  const std::vector<float> w = DecodedF32(weight);
  Expected expected{rows, N, K, std::vector<double>(static_cast<size_t>(rows * N)), std::vector<double>(static_cast<size_t>(rows * N))};
  const auto multiply_row = [&](int64_t r) {
    const int64_t e = std::upper_bound(offsets.begin(), offsets.end(), r) - offsets.begin() - 1;
    const float* row = x.data() + (gather.empty() ? r : gather[static_cast<size_t>(r)]) * K;
    for (int64_t n = 0; n < N; ++n) {
      const float* weights = w.data() + (e * N + n) * K;
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < K; ++k) {
        const double product = static_cast<double>(weights[k]) * row[k];
        sum += product;
        magnitude += std::fabs(product);
      }
      const double b = bias.empty() ? 0.0 : bias[static_cast<size_t>(e * N + n)];
      expected.values[static_cast<size_t>(r * N + n)] = sum + b;
      expected.magnitude[static_cast<size_t>(r * N + n)] = magnitude + std::fabs(b);
    }
  };
  const int64_t products = rows * N * K, threads = products < (1 << 24) ? 1 : std::max(1U, std::thread::hardware_concurrency());
  std::vector<std::thread> others;
  for (int64_t t = 1; t < threads; ++t) {
    others.emplace_back([&, t] {
      for (int64_t r = t; r < rows; r += threads) multiply_row(r);
    });
  }
  for (int64_t r = 0; r < rows; r += threads) multiply_row(r);
  for (std::thread& other : others) other.join();
  return expected;
}

/// A tensor of f32 or bf16 numbers with its own memory; reads back as fp32.
class Numbers {
 public:
  Numbers(std::vector<float> values, DType dtype) : dtype_(dtype), floats_(std::move(values)) {
    if (dtype == DType::kBF16) halves_ = ToBF16(floats_);
  }
  Numbers(int64_t count, DType dtype) : Numbers(std::vector<float>(static_cast<size_t>(count), NAN), dtype) {}

  TensorView View(int64_t rows, int64_t cols, int64_t stride = 0) {
    TensorView view(data(), dtype_, {rows, cols});
    if (stride > 0) view.set_strides(std::vector<int64_t>{stride, 1});
    return view;
  }
  void* data() { return dtype_ == DType::kBF16 ? static_cast<void*>(halves_.data()) : floats_.data(); }
  float operator[](int64_t i) const {
    return dtype_ == DType::kBF16 ? F32FromBF16(halves_[static_cast<size_t>(i)]) : floats_[static_cast<size_t>(i)];
  }
  std::vector<float> Values() const {
    std::vector<float> values;
    for (size_t i = 0; i < floats_.size(); ++i) values.push_back((*this)[static_cast<int64_t>(i)]);
    return values;
  }

 private:
  DType dtype_;
  std::vector<float> floats_;
  std::vector<uint16_t> halves_;
};

inline Bounds BoundsFor(DType y) { return y == DType::kBF16 ? Bounds::ExactBF16() : Bounds::ExactF32(); }

/// Names of the kernels that Explain supports for this problem.
inline std::vector<std::string> SupportedKernels(const Problem& problem) {
  std::vector<std::string> names;
  for (const Verdict& verdict : Explain(problem)) {
    if (verdict.supported) names.emplace_back(verdict.kernel);
  }
  return names;
}

inline Problem ProblemOf(Op op, const PackedWeight& weight, DType activation, Mode mode = Mode::kExact) {
  return {op, weight.scheme(), activation, mode, Device{}, weight.E(), weight.N(), weight.K(), 0, !weight.parts().perm.empty()};
}

}  // namespace billfish::test
