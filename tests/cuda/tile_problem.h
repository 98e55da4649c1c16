// A weight on the device with rows of x, and the fp64 product that kernels are checked against.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
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

/// [E,N] numbers.
inline std::vector<float> Bias(const PackedWeight& weight) { return test::Gaussian(static_cast<size_t>(weight.E() * weight.N()), 3); }

/// What bf16 activations meet.
inline std::vector<QuantScheme> EveryFormat() {
  return {schemes::Int4(32, true),
          schemes::Int4(32, false),
          schemes::Int4(64, true),
          schemes::Int4(64, false),
          schemes::Int4(128, true),
          schemes::Int4(128, false),
          schemes::Int4(128, true, DType::kF16),
          schemes::Int4(16, false, DType::kF32),
          schemes::Int4(0, true),
          schemes::Int4(0, false),
          schemes::kNvfp4,
          schemes::kMxfp4,
          schemes::kFp8Channel,
          schemes::kFp8Block128,
          schemes::kBf16};
}

/// What fp16 activations meet.
inline std::vector<QuantScheme> FormatsForF16() {
  return {schemes::Int4(128, true, DType::kF16),
          schemes::Int4(32, false),
          schemes::kNvfp4,
          schemes::kFp8Block128,
          schemes::kFp8Tensor,
          schemes::kF16};
}

/// E8M0 scales that span more in a row than a layout without wide_scales holds.
inline PackedWeight WideScaledWeight() {
  WeightParts parts = RandomParts(schemes::kMxfp4, 1, 70, 256, 3);
  std::vector<uint8_t> scales(70 * 8);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<uint8_t>(i % 8 == 0 ? i % 3 : 60 + i % 90);
  parts.scales = Bytes::Own(std::move(scales));
  return MakeWeight(schemes::kMxfp4, 1, 70, 256, std::move(parts));
}

inline std::string NameOf(const PackedWeight& weight, int64_t rows) {
  return weight.scheme().Name() + " rows " + std::to_string(rows) + " N " + std::to_string(weight.N()) + " K " + std::to_string(weight.K());
}

/// A call of a dense kernel.
struct LinearCase {
  int64_t M = 1;
  DType x = DType::kBF16, y = DType::kBF16;
  int64_t x_padding = 0, y_padding = 0;  ///< elements between rows
  int64_t x_offset = 0;                  ///< elements before the first row

  /// values, [M,K], with not-a-number before, between and behind the rows.
  std::vector<float> Surrounded(const std::vector<float>& values, int64_t K) const {
    std::vector<float> memory(static_cast<size_t>(x_offset + M * (K + x_padding) + 8), NAN);
    for (int64_t m = 0; m < M; ++m) {
      std::copy_n(&values[static_cast<size_t>(m * K)], K, &memory[static_cast<size_t>(x_offset + m * (K + x_padding))]);
    }
    return memory;
  }
  /// That of y, which began as not-a-number, the N columns of every row were written and nothing else.
  void ExpectWritten(const std::vector<float>& found, int64_t N, const std::string& name) const {
    const int64_t stride = N + y_padding;
    for (int64_t m = 0; m < M; ++m) {
      for (int64_t n = 0; n < stride; ++n) {
        if (std::isfinite(found[static_cast<size_t>(m * stride + n)]) == (n < N)) continue;
        ADD_FAILURE() << name << ": row " << m << " column " << n << (n < N ? " is not a number" : " was written beside y");
        return;
      }
    }
  }
};

/// wgmma where the device has it, and mma.sync, which every device has.
class TileCoresTest : public testing::TestWithParam<TileCores> {};
inline auto EveryTileCores() { return testing::Values(TileCores::kBest, TileCores::kMmaSync); }
inline std::string TileCoresName(const testing::TestParamInfo<TileCores>& info) {
  return info.param == TileCores::kBest ? "Best" : "MmaSync";
}

inline test::Bounds TileBounds(DType y) { return y == DType::kF16 ? test::Bounds{0x1p-24, 0x1p-11} : test::BoundsFor(y); }

}  // namespace billfish::cuda
