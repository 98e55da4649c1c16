// Mixture-of-experts layers run on a GPU and on the CPU by tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "billfish/moe.h"
#include "support/device_numbers.h"
#include "support/linear_problem.h"

namespace billfish::test {

/// |found - wanted| / |wanted|; infinite where a number is not finite.
inline double RelativeError(const std::vector<float>& found, const std::vector<float>& wanted) {
  double error = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(static_cast<double>(found[i]) - wanted[i], 2);
    size += std::pow(static_cast<double>(wanted[i]), 2);
  }
  return std::isfinite(error) ? std::sqrt(error / (size + 1e-300)) : INFINITY;
}

/// A routing: top_k experts and weights for each of T tokens.
struct Slots {
  int64_t T, top_k;
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

/// How slots fall on experts.
enum class Spread : uint8_t { kEven, kGaps, kOneExpert, kSkewed };

inline Slots MakeSlots(int64_t T, int64_t top_k, int64_t E, Spread spread, uint64_t seed) {
  std::mt19937_64 rng(seed);
  Slots slots{T, top_k, {}, Gaussian(static_cast<size_t>(T * top_k), seed)};
  for (int64_t i = 0; i < T * top_k; ++i) {
    int64_t id = static_cast<int64_t>(rng() % static_cast<uint64_t>(E));
    if (spread == Spread::kGaps && rng() % 4 == 0) id = -1;
    if (spread == Spread::kOneExpert) id = E - 1;
    if (spread == Spread::kSkewed && rng() % 8 != 0) id %= 2;
    slots.ids.push_back(static_cast<int32_t>(std::min(id, E - 1)));
  }
  return slots;
}

/// int32 numbers and their copy on GPU 0.
class DeviceInts {
 public:
  explicit DeviceInts(std::vector<int32_t> values) : values_(std::move(values)) {
    buffer_ = std::move(*DeviceBuffer::Allocate(kGpu, std::max<size_t>(4, values_.size() * 4)));
    const auto count = static_cast<int64_t>(values_.size());
    EXPECT_TRUE(
        CopyTensor(TensorView(buffer_.data(), DType::kI32, {count}, kGpu), ConstTensorView(values_.data(), DType::kI32, {count})).ok());
  }
  TensorView View(int64_t rows, int64_t cols) const { return TensorView(buffer_.data(), DType::kI32, {rows, cols}, kGpu); }
  std::vector<int32_t> Read() {
    const auto count = static_cast<int64_t>(values_.size());
    EXPECT_TRUE(
        CopyTensor(TensorView(values_.data(), DType::kI32, {count}), ConstTensorView(buffer_.data(), DType::kI32, {count}, kGpu)).ok());
    return values_;
  }

 private:
  std::vector<int32_t> values_;
  DeviceBuffer buffer_;
};

/// Runs the layer on the CPU.
inline std::vector<float> OnCpu(const MoeLayer& layer, const std::vector<float>& x, Slots slots, int threads = 2) {
  Numbers input(x, DType::kBF16), y(slots.T * layer.H(), DType::kF32);
  Workspace workspace;
  EXPECT_TRUE(workspace.Reserve(layer.WorkspaceBytes(slots.T, slots.top_k)).ok());
  ExecContext ctx{workspace, threads};
  const Routing routing{TensorView(slots.ids.data(), DType::kI32, {slots.T, slots.top_k}),
                        TensorView(slots.weights.data(), DType::kF32, {slots.T, slots.top_k})};
  const Status status = layer.Forward(input.View(slots.T, layer.H()), routing, y.View(slots.T, layer.H()), ctx);
  EXPECT_TRUE(status.ok()) << status.message();
  return y.Values();
}

/// Runs the layer on GPU 0; what it does not write is not-a-number.
inline std::vector<float> OnGpu(const MoeLayer& layer, const std::vector<float>& x, const Slots& slots) {
  const DeviceNumbers input(x, DType::kBF16), y(slots.T * layer.H(), DType::kF32), weights(slots.weights, DType::kF32);
  const DeviceInts ids(slots.ids);
  const auto scratch = DeviceBuffer::Allocate(kGpu, std::max<size_t>(256, layer.WorkspaceBytes(slots.T, slots.top_k)));
  EXPECT_TRUE(scratch) << scratch.status().message();
  Workspace workspace(scratch->span());
  ExecContext ctx{workspace};
  const Routing routing{ids.View(slots.T, slots.top_k), weights.View(slots.T, slots.top_k)};
  const Status status = layer.Forward(input.View(slots.T, layer.H()), routing, y.View(slots.T, layer.H()), ctx);
  EXPECT_TRUE(status.ok()) << status.message();
  return y.Read();
}

}  // namespace billfish::test
