// Activations in the order of an act-order weight. Needs a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "billfish/cuda.h"
#include "cuda/gather_columns.h"

namespace billfish::cuda {
namespace {

template <class T>
DeviceBuffer OnDevice(const std::vector<T>& values, DType dtype) {
  const Device gpu{Device::Kind::kCuda, 0};
  auto buffer = DeviceBuffer::Allocate(gpu, values.size() * sizeof(T));
  EXPECT_TRUE(buffer.has_value());
  const auto count = static_cast<int64_t>(values.size());
  EXPECT_TRUE(CopyTensor(TensorView(buffer->data(), dtype, {count}, gpu), ConstTensorView(values.data(), dtype, {count})).ok());
  return std::move(buffer).value();
}

TEST(GatherColumns, PutsColumnJWhereThePermutationSays) {
  auto device = GpuDevice::Get(0);
  if (!device) GTEST_SKIP() << device.status().message();
  auto gather = GatherColumns::Create(**device);
  ASSERT_TRUE(gather.has_value()) << gather.status().message();
  std::mt19937 random(1);
  for (const int64_t M : {1, 7, 8, 9, 100}) {
    for (const int64_t K : {1, 255, 256, 257, 4096}) {
      const int64_t stride = K + 3;
      std::vector<uint16_t> x(static_cast<size_t>(M * stride)), y(static_cast<size_t>(M * K));
      for (auto& value : x) value = static_cast<uint16_t>(random());
      std::vector<int32_t> perm(static_cast<size_t>(K));
      std::iota(perm.begin(), perm.end(), 0);
      std::shuffle(perm.begin(), perm.end(), random);
      const DeviceBuffer x_gpu = OnDevice(x, DType::kBF16), perm_gpu = OnDevice(perm, DType::kI32), y_gpu = OnDevice(y, DType::kBF16);
      const Status status =
          gather->Run(x_gpu.data(), stride, reinterpret_cast<const int32_t*>(perm_gpu.data()), y_gpu.data(), M, K, nullptr);
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_TRUE(
          CopyTensor(TensorView(y.data(), DType::kBF16, {M * K}), ConstTensorView(y_gpu.data(), DType::kBF16, {M * K}, y_gpu.device()))
              .ok());
      for (int64_t m = 0; m < M; ++m) {
        for (int64_t j = 0; j < K; ++j) {
          ASSERT_EQ(y[static_cast<size_t>(m * K + j)], x[static_cast<size_t>(m * stride + perm[static_cast<size_t>(j)])]) << m << " " << j;
        }
      }
    }
  }
}

TEST(GatherColumns, RefusesMoreRowsThanAGridHas) {
  auto device = GpuDevice::Get(0);
  if (!device) GTEST_SKIP() << device.status().message();
  auto gather = GatherColumns::Create(**device);
  ASSERT_TRUE(gather.has_value()) << gather.status().message();
  EXPECT_EQ(gather->Run(nullptr, 8, nullptr, nullptr, 600000, 8, nullptr).message(),
            "600000 rows were given to an act-order weight; it takes 524280 at a time: split the batch");
}

}  // namespace
}  // namespace billfish::cuda
