// Memory, streams, graphs, timers and kernel loading on a real GPU; skipped where there is none.
#include "cuda/device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "billfish/cuda.h"
#include "cuda/jit.h"

namespace billfish::cuda {
namespace {

constexpr Device kGpu{Device::Kind::kCuda, 0};

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto gpu = GpuDevice::Get(0); !gpu.ok()) GTEST_SKIP() << gpu.error().message();
  }
};

// The read probe over `words` of zeros, launched on the stream.
Status LaunchProbe(const LoadedKernel& kernel, const DeviceBuffer& data, const DeviceBuffer& never, CudaStream stream) {
  const void* words = data.data();
  void* out = never.data();
  uint64_t vectors = data.bytes() / 16;
  std::array<void*, 3> parameters = {&words, &vectors, &out};
  return Launch(kernel, {.grid_x = 132, .threads = 512}, static_cast<CUstream>(stream), parameters);
}

KernelSpec Probe() { return {.file = "read_probe.cu", .function = "read_probe"}; }

constexpr size_t kProbeBytes = size_t{132} * 512 * 8 * 16 * 4;

TEST_F(GpuTest, BytesSurviveTheWayThereAndBack) {
  auto stream = Stream::Create(kGpu);
  ASSERT_TRUE(stream.ok()) << stream.error().message();
  std::vector<int32_t> from(1 << 20), back(1 << 20);
  std::iota(from.begin(), from.end(), 7);
  auto one = DeviceBuffer::Allocate(kGpu, from.size() * 4);
  auto two = DeviceBuffer::Allocate(kGpu, from.size() * 4);
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(one.value().data()) % 256, 0U);
  const auto count = static_cast<int64_t>(from.size());
  const TensorView on_one(one.value().data(), DType::kI32, {count}, kGpu), on_two(two.value().data(), DType::kI32, {count}, kGpu);
  for (CudaStream on : {static_cast<CudaStream>(nullptr), stream.value().get()}) {
    std::fill(back.begin(), back.end(), 0);
    ASSERT_TRUE(CopyTensor(on_one, ConstTensorView(from.data(), DType::kI32, {count}), on).ok());
    ASSERT_TRUE(CopyTensor(on_two, on_one, on).ok());
    ASSERT_TRUE(CopyTensor(TensorView(back.data(), DType::kI32, {count}), on_two, on).ok());
    EXPECT_EQ(back, from);
  }
}

TEST_F(GpuTest, AnAllocationThatIsTooLargeSaysHowMuchIsFree) {
  const auto buffer = DeviceBuffer::Allocate(kGpu, size_t{1} << 50);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(buffer.error().message().find("bytes are free"), std::string_view::npos) << buffer.error().message();
  // The device still works.
  EXPECT_TRUE(DeviceBuffer::Allocate(kGpu, 1 << 20).ok());
  EXPECT_TRUE(DeviceBuffer::Allocate(kGpu, 0).ok());
}

TEST_F(GpuTest, MemoryIsGivenBack) {
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(DeviceBuffer::Allocate(kGpu, size_t{4} << 30).ok()) << i;  // 256 GB in turn
}

TEST_F(GpuTest, AnyThreadMayUseADevice) {
  auto stream = Stream::Create(kGpu);
  ASSERT_TRUE(stream.ok());
  std::thread([&] {
    auto buffer = DeviceBuffer::Allocate(kGpu, 4096);
    ASSERT_TRUE(buffer.ok());
    EXPECT_TRUE(stream.value().Synchronize().ok());
  }).join();
  std::thread([] {
    // A timer made elsewhere, used on the default stream of a thread without a context.
    auto timer = CudaTimer::Create(kGpu);
    ASSERT_TRUE(timer.ok());
    std::thread([&] {
      EXPECT_TRUE(timer.value().Start(nullptr).ok());
      EXPECT_TRUE(timer.value().Stop(nullptr).ok());
    }).join();
    EXPECT_TRUE(timer.value().ElapsedUs().ok());
  }).join();
}

TEST_F(GpuTest, KernelsLoadOnceAndRun) {
  const auto gpu = GpuDevice::Get(0);
  const auto kernel = LoadKernel(Probe(), *gpu.value());
  ASSERT_TRUE(kernel.ok()) << kernel.error().message();
  const auto again = LoadKernel(Probe(), *gpu.value());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(kernel.value().function, again.value().function);
  auto stream = Stream::Create(kGpu);
  auto data = DeviceBuffer::Allocate(kGpu, kProbeBytes);
  auto never = DeviceBuffer::Allocate(kGpu, 4);
  ASSERT_TRUE(stream.ok() && data.ok() && never.ok());
  EXPECT_TRUE(LaunchProbe(kernel.value(), data.value(), never.value(), stream.value().get()).ok());
  EXPECT_TRUE(stream.value().Synchronize().ok());
}

TEST_F(GpuTest, SharedMemoryBeyondTheDeviceIsRefused) {
  const auto gpu = GpuDevice::Get(0);
  KernelSpec spec = Probe();
  spec.shared_bytes = 1 << 20;
  const auto kernel = LoadKernel(spec, *gpu.value());
  ASSERT_FALSE(kernel.ok());
  EXPECT_EQ(kernel.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(kernel.error().message().find("needs 1048576 bytes of shared memory"), std::string_view::npos) << kernel.error().message();
  spec.shared_bytes = static_cast<uint32_t>(gpu.value()->info().shared_bytes);
  EXPECT_TRUE(LoadKernel(spec, *gpu.value()).ok());
}

TEST_F(GpuTest, AnImpossibleLaunchNamesTheKernelAndTheShape) {
  const auto gpu = GpuDevice::Get(0);
  const auto kernel = LoadKernel(Probe(), *gpu.value());
  ASSERT_TRUE(kernel.ok());
  const void* words = nullptr;
  void* out = nullptr;
  uint64_t vectors = 0;
  std::array<void*, 3> parameters = {&words, &vectors, &out};
  const Status status = Launch(kernel.value(), {.threads = 4096}, nullptr, parameters);
  EXPECT_EQ(status.code(), ErrorCode::kDevice);
  EXPECT_NE(status.message().find("launching read_probe (grid 1 x 1 x 1, 4096 threads"), std::string_view::npos) << status.message();
}

TEST_F(GpuTest, AGraphRepeatsWhatWasRecorded) {
  auto stream = Stream::Create(kGpu);
  auto buffer = DeviceBuffer::Allocate(kGpu, 4096);
  auto copy = DeviceBuffer::Allocate(kGpu, 4096);
  ASSERT_TRUE(stream.ok() && buffer.ok() && copy.ok());
  const TensorView from(buffer.value().data(), DType::kI32, {1024}, kGpu), to(copy.value().data(), DType::kI32, {1024}, kGpu);
  auto graph = CudaGraph::Capture(stream.value(), [&] { return CopyTensor(to, from, stream.value().get()); });
  ASSERT_TRUE(graph.ok()) << graph.error().message();
  EXPECT_FALSE(graph.value().empty());
  for (int32_t value : {3, 5}) {
    std::vector<int32_t> host(1024, value), back(1024);
    ASSERT_TRUE(CopyTensor(from, ConstTensorView(host.data(), DType::kI32, {1024}), stream.value().get()).ok());
    ASSERT_TRUE(graph.value().Launch(stream.value().get()).ok());
    ASSERT_TRUE(CopyTensor(TensorView(back.data(), DType::kI32, {1024}), to, stream.value().get()).ok());
    EXPECT_EQ(back, host);
  }
}

TEST_F(GpuTest, AnErrorWhileRecordingEndsTheCapture) {
  auto stream = Stream::Create(kGpu);
  ASSERT_TRUE(stream.ok());
  const auto graph = CudaGraph::Capture(stream.value(), [] { return Status(ErrorCode::kCancelled, "stopped by the test"); });
  ASSERT_FALSE(graph.ok());
  EXPECT_EQ(graph.error().message(), "stopped by the test");
  EXPECT_TRUE(stream.value().Synchronize().ok());
  // What must not be recorded invalidates the capture; the stream works afterwards.
  EXPECT_FALSE(CudaGraph::Capture(stream.value(), [&] { return stream.value().Synchronize(); }).ok());
  EXPECT_TRUE(stream.value().Synchronize().ok());
  EXPECT_TRUE(CudaGraph::Capture(stream.value(), [] { return OkStatus(); }).ok());
}

TEST_F(GpuTest, TheTimerMeasuresTheStreamAndNotTheHost) {
  const auto gpu = GpuDevice::Get(0);
  const auto kernel = LoadKernel(Probe(), *gpu.value());
  auto stream = Stream::Create(kGpu);
  auto timer = CudaTimer::Create(kGpu);
  auto data = DeviceBuffer::Allocate(kGpu, kProbeBytes);
  auto never = DeviceBuffer::Allocate(kGpu, 4);
  ASSERT_TRUE(kernel.ok() && stream.ok() && timer.ok() && data.ok() && never.ok());
  const auto measure = [&](int repeats) {
    EXPECT_TRUE(timer.value().Start(stream.value().get()).ok());
    for (int i = 0; i < repeats; ++i) EXPECT_TRUE(LaunchProbe(kernel.value(), data.value(), never.value(), stream.value().get()).ok());
    EXPECT_TRUE(timer.value().Stop(stream.value().get()).ok());
    const auto us = timer.value().ElapsedUs();
    EXPECT_TRUE(us.ok());
    return us.ok() ? us.value() : 0.0;
  };
  measure(10);
  const double few = measure(10), many = measure(1000);
  EXPECT_GT(few, 0);
  EXPECT_GT(many, 10 * few);
  printf("read_probe over %zu bytes: %.2f us a launch, %.2f TB/s\n", kProbeBytes, many / 1000,
         static_cast<double>(kProbeBytes) / (many / 1000) * 1e-6);
  // Started but not stopped.
  auto unused = CudaTimer::Create(kGpu);
  ASSERT_TRUE(unused.ok());
  EXPECT_FALSE(unused.value().ElapsedUs().ok());
}

TEST_F(GpuTest, ManyThreadsLoadTheSameKernel) {
  const auto gpu = GpuDevice::Get(0);
  std::vector<CUfunction> functions(8);
  std::vector<std::thread> threads;
  KernelSpec spec = Probe();
  spec.defines = {{"BF_UNUSED", "8"}};  // not loaded by another test
  for (CUfunction& function : functions) {
    threads.emplace_back([&] {
      const auto kernel = LoadKernel(spec, *gpu.value());
      if (kernel.ok()) function = kernel.value().function;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const CUfunction function : functions) {
    EXPECT_NE(function, nullptr);
    EXPECT_EQ(function, functions.front());
  }
}

}  // namespace
}  // namespace billfish::cuda
