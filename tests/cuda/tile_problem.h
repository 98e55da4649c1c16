// A weight on the device with rows of x, and the fp64 product that kernels are checked against.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/device.h"
#include "cuda/linear_tile.h"
#include "cuda/tile_weight.h"
#include "random_weight.h"
#include "support/device_numbers.h"
#include "support/linear_problem.h"

namespace billfish::cuda {

inline const GpuDevice& Gpu() { return *GpuDevice::Get(0).value(); }

/// Numbers that the type holds exactly.
inline std::vector<float> Rounded(std::vector<float> values, DType dtype) {
  for (float& v : values) v = dtype == DType::kF16 ? F32FromF16(F16FromF32(v)) : F32FromBF16(BF16FromF32(v));
  return values;
}

/// Any bytes in device memory.
template <class T>
class DeviceValues {
 public:
  explicit DeviceValues(const std::vector<T>& values) {
    auto buffer = DeviceBuffer::Allocate(test::kGpu, std::max<size_t>(16, values.size() * sizeof(T)));
    EXPECT_TRUE(buffer) << buffer.status().message();
    if (!buffer) return;
    buffer_ = std::move(*buffer);
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    if (bytes == 0) return;
    EXPECT_TRUE(
        CopyTensor(TensorView(buffer_.data(), DType::kU8, {bytes}, test::kGpu), ConstTensorView(values.data(), DType::kU8, {bytes})).ok());
  }
  const T* data() const { return reinterpret_cast<const T*>(buffer_.data()); }

 private:
  DeviceBuffer buffer_;
};

/// A weight with its bias ([E,N] or empty) in packed row order on the device.
struct WeightOnDevice {
  PackedWeight weight;
  std::vector<float> bias;
  TileWeight tiles;
  std::unique_ptr<DeviceValues<float>> packed_bias;

  explicit WeightOnDevice(PackedWeight w, std::vector<float> b = {}, RowOrder order = RowOrder::kPlain)
      : weight(std::move(w)), bias(std::move(b)) {
    auto uploaded = TileWeight::Upload(weight, Gpu(), order);
    EXPECT_TRUE(uploaded) << uploaded.status().message();
    if (!uploaded) return;
    tiles = std::move(*uploaded);
    if (bias.empty()) return;
    const TileForm& form = tiles.form();
    std::vector<float> packed(static_cast<size_t>(form.E * form.packed_rows()), NAN);
    for (int64_t e = 0; e < form.E; ++e) {
      for (int64_t n = 0; n < form.packed_rows(); ++n) {
        const int64_t row = SourceRow(form, n);
        if (row >= 0) packed[static_cast<size_t>(e * form.packed_rows() + n)] = bias[static_cast<size_t>(e * form.N + row)];
      }
    }
    packed_bias = std::make_unique<DeviceValues<float>>(packed);
  }
  TileView View() const { return {tiles.form(), tiles.tiles(), tiles.row_scale(), packed_bias == nullptr ? nullptr : packed_bias->data()}; }
};

inline test::Bounds TileBounds(DType y) { return y == DType::kF16 ? test::Bounds{0x1p-24, 0x1p-11} : test::BoundsFor(y); }

}  // namespace billfish::cuda
