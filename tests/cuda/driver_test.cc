// What a caller reads when there is no driver, no GPU or the wrong argument. Nothing here needs a GPU.
#include "cuda/driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <string>

#include "billfish/cuda.h"
#include "cuda/device.h"
#include "cuda/driver_api.h"

namespace billfish::cuda {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Driver, AMissingLibrarySaysWhatToInstall) {
  const auto driver = OpenDriver("libbillfish_no_such_driver.so.1");
  ASSERT_FALSE(driver.ok());
  EXPECT_EQ(driver.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(std::string(driver.error().message()),
              AllOf(HasSubstr("a GPU was asked for"), HasSubstr("libbillfish_no_such_driver.so.1"), HasSubstr("install NVIDIA's driver")));
}

TEST(Driver, ALibraryWithoutAnEntryPointIsCalledTooOld) {
  const auto driver = OpenDriver("libc.so.6");
  ASSERT_FALSE(driver.ok());
  EXPECT_EQ(driver.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(std::string(driver.error().message()), AllOf(HasSubstr("has no cuInit"), HasSubstr("CUDA 12.0 or later")));
}

TEST(Driver, DevicesAreListedOrTheReasonIsGiven) {
  const auto devices = CudaDevices();
  if (!devices.ok()) {
    EXPECT_EQ(devices.error().code(), ErrorCode::kNotFound);
    EXPECT_THAT(std::string(devices.error().message()), AllOf(HasSubstr("a GPU was asked for"), HasSubstr("use the CPU")));
    return;
  }
  ASSERT_FALSE(devices.value().empty());
  for (const CudaDeviceInfo& info : devices.value()) {
    EXPECT_FALSE(info.name.empty());
    EXPECT_GE(info.major, 5);
    EXPECT_GT(info.sms, 0);
    EXPECT_GT(info.memory_bytes, size_t{1} << 30);
    EXPECT_GT(info.l2_bytes, 0U);
    EXPECT_GE(info.shared_bytes, 48U << 10);
    EXPECT_GE(info.driver_version, 11080);
  }
}

TEST(Driver, ADeviceThatDoesNotExistIsRefused) {
  const auto device = GpuDevice::Get(1000);
  ASSERT_FALSE(device.ok());
  EXPECT_EQ(device.error().code(), ErrorCode::kNotFound);
}

TEST(Driver, ACpuDeviceIsRefusedWhereAGpuIsMeant) {
  const Device cpu{Device::Kind::kCpu, 0};
  const auto buffer = DeviceBuffer::Allocate(cpu, 16);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(buffer.error().message()), HasSubstr("device memory was asked for on a CPU device"));
  EXPECT_EQ(Stream::Create(cpu).status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CudaTimer::Create(cpu).status().code(), ErrorCode::kInvalidArgument);
}

TEST(Driver, EmptyHandlesAreRefused) {
  CudaTimer timer;
  EXPECT_THAT(std::string(timer.Start(nullptr).message()), HasSubstr("empty CudaTimer"));
  EXPECT_THAT(std::string(timer.Stop(nullptr).message()), HasSubstr("empty CudaTimer"));
  EXPECT_THAT(std::string(timer.ElapsedUs().status().message()), HasSubstr("empty CudaTimer"));
  CudaGraph graph;
  EXPECT_TRUE(graph.empty());
  EXPECT_THAT(std::string(graph.Launch(nullptr).message()), HasSubstr("empty CudaGraph"));
  bool called = false;
  const auto captured = CudaGraph::Capture(Stream(), [&] {
    called = true;
    return OkStatus();
  });
  EXPECT_THAT(std::string(captured.status().message()), HasSubstr("empty Stream"));
  EXPECT_FALSE(called);
}

TEST(CopyTensor, HostToHostCopiesTheBytes) {
  const std::array<float, 6> from = {1, 2, 3, 4, 5, 6};
  std::array<float, 6> to{};
  ASSERT_TRUE(CopyTensor(TensorView(to.data(), DType::kF32, {2, 3}), ConstTensorView(from.data(), DType::kF32, {2, 3})).ok());
  EXPECT_EQ(to, from);
}

TEST(CopyTensor, RefusesDifferentShapesDtypesAndGaps) {
  std::array<float, 6> memory{};
  const TensorView view(memory.data(), DType::kF32, {2, 3});
  const Status shape = CopyTensor(view, ConstTensorView(memory.data(), DType::kF32, {3, 2}));
  EXPECT_EQ(shape.code(), ErrorCode::kShapeMismatch);
  EXPECT_THAT(std::string(shape.message()), HasSubstr("the same dtype and shape"));
  EXPECT_EQ(CopyTensor(view, ConstTensorView(memory.data(), DType::kI32, {2, 3})).code(), ErrorCode::kShapeMismatch);
  EXPECT_EQ(CopyTensor(view, ConstTensorView(memory.data(), DType::kF32, {6})).code(), ErrorCode::kShapeMismatch);
  ConstTensorView gaps(memory.data(), DType::kF32, {2, 2});
  gaps.set_strides(std::array<int64_t, 2>{3, 1});
  const Status strided = CopyTensor(TensorView(memory.data(), DType::kF32, {2, 2}), gaps);
  EXPECT_EQ(strided.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(strided.message()), HasSubstr("contiguous"));
}

TEST(Arch, TargetsAreWhatTheCompilerCallsThem) {
  EXPECT_EQ((Arch{8, 0}.Target()), "sm_80");
  EXPECT_EQ((Arch{8, 9}.Target()), "sm_89");
  EXPECT_EQ((Arch{9, 0}.Target()), "sm_90a");
  EXPECT_EQ((Arch{10, 3}.Target()), "sm_103a");
  EXPECT_EQ((Arch{12, 0}.Target()), "sm_120a");
}

}  // namespace
}  // namespace billfish::cuda
