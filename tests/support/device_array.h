// A vector and its copy on GPU 0.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "billfish/cuda.h"

namespace billfish::test {

inline constexpr Device kFirstGpu{Device::Kind::kCuda, 0};

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    auto buffer = DeviceBuffer::Allocate(kFirstGpu, std::max<size_t>(1, Bytes()));
    EXPECT_TRUE(buffer) << buffer.status().message();
    if (!buffer) return;
    buffer_ = std::move(*buffer);
    const Status status = CopyTensor({buffer_.data(), DType::kU8, {Bytes64()}, kFirstGpu}, {values.data(), DType::kU8, {Bytes64()}});
    EXPECT_TRUE(status.ok()) << status.message();
  }
  DeviceArray(size_t count, T value) : DeviceArray(std::vector<T>(count, value)) {}

  T* get() const { return reinterpret_cast<T*>(buffer_.data()); }
  std::vector<T> Read() const {
    std::vector<T> values(count_);
    const Status status = CopyTensor({values.data(), DType::kU8, {Bytes64()}}, {buffer_.data(), DType::kU8, {Bytes64()}, kFirstGpu});
    EXPECT_TRUE(status.ok()) << status.message();
    return values;
  }

 private:
  size_t Bytes() const { return count_ * sizeof(T); }
  int64_t Bytes64() const { return static_cast<int64_t>(Bytes()); }
  size_t count_ = 0;
  DeviceBuffer buffer_;
};

}  // namespace billfish::test
