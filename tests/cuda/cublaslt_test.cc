// The yardstick itself: right orientation of every operand, and words where it is missing or misused.
#include "cuda/cublaslt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "billfish/cuda.h"
#include "billfish/cuda_baseline.h"
#include "core/float_formats.h"

namespace billfish {
namespace {

constexpr Device kGpu{Device::Kind::kCuda, 0};

TEST(CublasLt, WhereItIsMissingTheSentenceSaysWhatToInstall) {
  const auto api = cuda::OpenCublasLt({"libbillfish_no_cublas.so.13", "libc.so.6"});
  ASSERT_FALSE(api.ok());
  EXPECT_EQ(api.error().code(), ErrorCode::kNotFound);
  const std::string message(api.error().message());
  EXPECT_NE(message.find("libbillfish_no_cublas.so.13"), std::string::npos) << message;
  EXPECT_NE(message.find("libc.so.6: has no cublasLtCreate"), std::string::npos) << message;
  EXPECT_NE(message.find("pip install nvidia-cublas"), std::string::npos) << message;
}

TEST(CublasLt, RefusesEmptyShapesOtherDevicesAndEmptyObjects) {
  EXPECT_NE(CublasLinear::Create(kGpu, 0, 8, 8).status().message().find("at least 1, got 0, 8 and 8"), std::string_view::npos);
  EXPECT_NE(CublasLinear::Create(Device{}, 8, 8, 8).status().message().find("on a CPU device"), std::string_view::npos);
  EXPECT_NE(CublasLinear().Forward(nullptr, nullptr, nullptr, nullptr).message().find("empty CublasLinear"), std::string_view::npos);
}

TEST(CublasLt, MultipliesByTheTransposedWeight) {
  if (const auto devices = CudaDevices(); !devices.ok()) GTEST_SKIP() << devices.error().message();
  for (const auto& [M, N, K] : {std::array<int64_t, 3>{1, 64, 256}, {3, 128, 64}, {70, 96, 512}}) {
    auto product = CublasLinear::Create(kGpu, M, N, K);
    if (!product.ok() && product.error().code() == ErrorCode::kNotFound) GTEST_SKIP() << product.error().message();
    ASSERT_TRUE(product.ok()) << product.error().message();
    std::vector<uint16_t> x(static_cast<size_t>(M * K)), w(static_cast<size_t>(N * K)), y(static_cast<size_t>(M * N));
    for (size_t i = 0; i < x.size(); ++i) x[i] = BF16FromF32(static_cast<float>(static_cast<int>(i * 7 % 13) - 6));
    for (size_t i = 0; i < w.size(); ++i) w[i] = BF16FromF32(static_cast<float>(static_cast<int>(i * 5 % 11) - 5));
    auto stream = Stream::Create(kGpu);
    auto dx = DeviceBuffer::Allocate(kGpu, x.size() * 2), dw = DeviceBuffer::Allocate(kGpu, w.size() * 2),
         dy = DeviceBuffer::Allocate(kGpu, y.size() * 2);
    ASSERT_TRUE(stream.ok() && dx.ok() && dw.ok() && dy.ok());
    const TensorView on_x(dx.value().data(), DType::kBF16, {M, K}, kGpu), on_w(dw.value().data(), DType::kBF16, {N, K}, kGpu),
        on_y(dy.value().data(), DType::kBF16, {M, N}, kGpu);
    const CudaStream on = stream.value().get();
    ASSERT_TRUE(CopyTensor(on_x, ConstTensorView(x.data(), DType::kBF16, {M, K}), on).ok());
    ASSERT_TRUE(CopyTensor(on_w, ConstTensorView(w.data(), DType::kBF16, {N, K}), on).ok());
    const Status run = product.value().Forward(on_x.data(), on_w.data(), on_y.mutable_data(), on);
    ASSERT_TRUE(run.ok()) << run.message();
    ASSERT_TRUE(CopyTensor(TensorView(y.data(), DType::kBF16, {M, N}), on_y, on).ok());
    for (int64_t m = 0; m < M; ++m) {
      for (int64_t n = 0; n < N; ++n) {
        float sum = 0;  // integers below 2^24: exact in any order
        for (int64_t k = 0; k < K; ++k)
          sum += F32FromBF16(x[static_cast<size_t>(m * K + k)]) * F32FromBF16(w[static_cast<size_t>(n * K + k)]);
        ASSERT_EQ(y[static_cast<size_t>(m * N + n)], BF16FromF32(sum)) << "M=" << M << " row " << m << " column " << n;
      }
    }
    auto graph =
        CudaGraph::Capture(stream.value(), [&] { return product.value().Forward(on_x.data(), on_w.data(), on_y.mutable_data(), on); });
    ASSERT_TRUE(graph.ok()) << graph.error().message();
    EXPECT_TRUE(graph.value().Launch(on).ok());
    EXPECT_TRUE(stream.value().Synchronize().ok());
  }
}

// Time of one product inside a graph, weights rotated over more than the L2 cache holds; printed for the record.
TEST(CublasLt, ReportsItsSpeed) {
  if (const auto devices = CudaDevices(); !devices.ok()) GTEST_SKIP() << devices.error().message();
  constexpr int64_t N = 4096, K = 4096;
  constexpr int kCopies = 13;
  auto weights = DeviceBuffer::Allocate(kGpu, size_t{kCopies} * N * K * 2);
  auto stream = Stream::Create(kGpu);
  auto timer = CudaTimer::Create(kGpu);
  ASSERT_TRUE(weights.ok() && stream.ok() && timer.ok());
  for (const int64_t M : {1, 16, 256, 4096}) {
    auto product = CublasLinear::Create(kGpu, M, N, K);
    if (!product.ok() && product.error().code() == ErrorCode::kNotFound) GTEST_SKIP() << product.error().message();
    auto x = DeviceBuffer::Allocate(kGpu, static_cast<size_t>(M * K * 2)), y = DeviceBuffer::Allocate(kGpu, static_cast<size_t>(M * N * 2));
    ASSERT_TRUE(product.ok() && x.ok() && y.ok());
    auto graph = CudaGraph::Capture(stream.value(), [&]() -> Status {
      for (int i = 0; i < kCopies; ++i) {
        const Status run =
            product.value().Forward(x.value().data(), weights.value().data() + i * N * K * 2, y.value().data(), stream.value().get());
        if (!run.ok()) return run;
      }
      return OkStatus();
    });
    ASSERT_TRUE(graph.ok()) << graph.error().message();
    double best = 1e30;
    for (int i = 0; i < 11; ++i) {
      ASSERT_TRUE(timer.value().Start(stream.value().get()).ok() && graph.value().Launch(stream.value().get()).ok() &&
                  timer.value().Stop(stream.value().get()).ok());
      const auto us = timer.value().ElapsedUs();
      ASSERT_TRUE(us.ok());
      best = std::min(best, us.value() / kCopies);
    }
    EXPECT_GT(best, 0);
    printf("cuBLASLt bf16 M=%d N=K=4096: %.2f us, %.2f TB/s of weights, %.1f TFLOP/s\n", static_cast<int>(M), best,
           2.0 * N * K / best * 1e-6, 2.0 * static_cast<double>(M) * N * K / best * 1e-6);
  }
}

}  // namespace
}  // namespace billfish
