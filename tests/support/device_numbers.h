// Numbers on a GPU, written and read back by tests.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "billfish/cuda.h"
#include "core/float_formats.h"

namespace billfish::test {

/// Skips the test where there is no GPU, naming what is missing.
#define BILLFISH_NEEDS_GPU()                                                                     \
  do {                                                                                           \
    if (const auto devices = CudaDevices(); !devices) GTEST_SKIP() << devices.error().message(); \
  } while (false)

inline constexpr Device kGpu{Device::Kind::kCuda, 0};

/// f32, bf16 or f16 numbers in device memory. What is not written holds not-a-number.
class DeviceNumbers {
 public:
  DeviceNumbers(const std::vector<float>& values, DType dtype) : DeviceNumbers(static_cast<int64_t>(values.size()), dtype) {
    Write(values);
  }
  DeviceNumbers(int64_t count, DType dtype) : count_(count), dtype_(dtype) {
    auto buffer = DeviceBuffer::Allocate(kGpu, std::max<size_t>(16, static_cast<size_t>(count) * ElementBytes()));
    if (buffer) buffer_ = std::move(*buffer);
    Write(std::vector<float>(static_cast<size_t>(count), NAN));
  }

  TensorView View(int64_t rows, int64_t cols, int64_t stride = 0, int64_t offset = 0) const {
    TensorView view(buffer_.data() + static_cast<size_t>(offset) * ElementBytes(), dtype_, {rows, cols}, kGpu);
    if (stride > 0) view.set_strides(std::vector<int64_t>{stride, 1});
    return view;
  }
  void Write(const std::vector<float>& values) {
    std::vector<uint16_t> halves;
    const void* bytes = values.data();
    if (dtype_ != DType::kF32) {
      for (const float value : values) halves.push_back(dtype_ == DType::kBF16 ? BF16FromF32(value) : F16FromF32(value));
      bytes = halves.data();
    }
    const auto count = static_cast<int64_t>(values.size());
    if (count == 0) return;
    const Status status = CopyTensor(TensorView(buffer_.data(), dtype_, {count}, kGpu), ConstTensorView(bytes, dtype_, {count}));
    EXPECT_TRUE(status.ok()) << status.message();
  }
  std::vector<float> Read() const {
    std::vector<float> values(static_cast<size_t>(count_));
    std::vector<uint16_t> halves(dtype_ == DType::kF32 ? 0 : values.size());
    void* bytes = dtype_ == DType::kF32 ? static_cast<void*>(values.data()) : halves.data();
    if (count_ == 0) return values;
    const Status status = CopyTensor(TensorView(bytes, dtype_, {count_}), ConstTensorView(buffer_.data(), dtype_, {count_}, kGpu));
    EXPECT_TRUE(status.ok()) << status.message();
    for (size_t i = 0; i < halves.size(); ++i) values[i] = dtype_ == DType::kBF16 ? F32FromBF16(halves[i]) : F32FromF16(halves[i]);
    return values;
  }
  std::byte* data() const { return buffer_.data(); }

 private:
  size_t ElementBytes() const { return static_cast<size_t>(DTypeBits(dtype_) / 8); }
  int64_t count_;
  DType dtype_;
  DeviceBuffer buffer_;
};

}  // namespace billfish::test
