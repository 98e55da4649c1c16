#include <fmt/format.h>

#include <vector>

#include "billfish/cuda_baseline.h"
#include "core/median.h"
#include "core/status_macros.h"
#include "cuda/device.h"
#include "cuda/driver.h"
#include "cuda/driver_api.h"
#include "cuda/jit.h"

namespace billfish {
namespace {

constexpr size_t kProbeBytes = size_t{2} << 30;
constexpr uint32_t kThreads = 512;
constexpr uint32_t kBlocksPerSm = 2;
constexpr int kProbeLoads = 8;  // of read_probe.cu
constexpr int kRepeats = 9;

/// Median microseconds of `launch`, after one launch outside the clock.
template <class Launch>
Result<double> MedianUs(Device device, const Stream& stream, const Launch& launch) {
  BILLFISH_ASSIGN_OR_RETURN(CudaTimer timer, CudaTimer::Create(device));
  BILLFISH_RETURN_IF_ERROR(launch());
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) {
    BILLFISH_RETURN_IF_ERROR(timer.Start(stream.get()));
    BILLFISH_RETURN_IF_ERROR(launch());
    BILLFISH_RETURN_IF_ERROR(timer.Stop(stream.get()));
    BILLFISH_ASSIGN_OR_RETURN(const double us, timer.ElapsedUs());
    times.push_back(us);
  }
  return Median(std::move(times));
}

Result<double> MeasureRead(const cuda::GpuDevice& gpu, Device device, const Stream& stream) {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::DriverApi* api, cuda::Driver());
  BILLFISH_ASSIGN_OR_RETURN(const cuda::LoadedKernel kernel, cuda::LoadKernel({"read_probe.cu", "read_probe", {}}, gpu));
  BILLFISH_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(device, kProbeBytes));
  BILLFISH_ASSIGN_OR_RETURN(DeviceBuffer never, DeviceBuffer::Allocate(device, sizeof(uint32_t)));
  auto address = reinterpret_cast<uint64_t>(buffer.data());
  BILLFISH_RETURN_IF_ERROR(cuda::Check(
      api->MemsetD32Async(address, 1, kProbeBytes / sizeof(uint32_t), static_cast<cuda::CUstream>(stream.get())), "filling a buffer"));
  cuda::LaunchShape shape;
  shape.grid_x = static_cast<uint32_t>(gpu.info().sms) * kBlocksPerSm;
  shape.threads = kThreads;
  const uint64_t step = uint64_t{shape.grid_x} * kThreads * kProbeLoads;
  uint64_t vectors = kProbeBytes / 16 / step * step;
  auto sink = reinterpret_cast<uint64_t>(never.data());
  void* parameters[] = {&address, &vectors, &sink};
  BILLFISH_ASSIGN_OR_RETURN(const double us, MedianUs(device, stream, [&] {
                              return cuda::Launch(kernel, shape, static_cast<cuda::CUstream>(stream.get()), parameters);
                            }));
  return static_cast<double>(vectors) * 16 / us * 1e6;
}

Result<double> MeasureMatmul(Device device, const Stream& stream) {
  constexpr int64_t kSize = 8192;
  constexpr size_t kBytes = static_cast<size_t>(kSize * kSize) * 2;
  BILLFISH_ASSIGN_OR_RETURN(const CublasLinear linear, CublasLinear::Create(device, kSize, kSize, kSize));
  BILLFISH_ASSIGN_OR_RETURN(DeviceBuffer operands, DeviceBuffer::Allocate(device, kBytes * 3));
  // Random numbers: the clock under zeros is higher.
  std::vector<uint16_t> random(static_cast<size_t>(kSize * kSize) * 2);
  uint64_t state = 1;
  for (uint16_t& bits : random) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    bits = static_cast<uint16_t>((state >> 48 & 0x80ff) | 0x3f00);
  }
  const auto count = static_cast<int64_t>(random.size());
  BILLFISH_RETURN_IF_ERROR(CopyTensor(TensorView(operands.data(), DType::kBF16, {count}, device),
                                      ConstTensorView(random.data(), DType::kBF16, {count}), stream.get()));
  BILLFISH_ASSIGN_OR_RETURN(const double us, MedianUs(device, stream, [&] {
                              return linear.Forward(operands.data(), operands.data() + kBytes, operands.data() + 2 * kBytes, stream.get());
                            }));
  return 2.0 * static_cast<double>(kSize) * static_cast<double>(kSize) * static_cast<double>(kSize) / us * 1e6;
}

}  // namespace

Result<CudaLimits> MeasureCudaLimits(Device device) {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuDevice::Get(device.index));
  BILLFISH_RETURN_IF_ERROR(gpu->MakeCurrent());
  BILLFISH_ASSIGN_OR_RETURN(const Stream stream, Stream::Create(device));
  CudaLimits limits;
  BILLFISH_ASSIGN_OR_RETURN(limits.read_bandwidth, MeasureRead(*gpu, device, stream));
  Result<double> matmul = MeasureMatmul(device, stream);
  if (matmul) {
    limits.bf16_matmul = *matmul;
  } else if (matmul.error().code() != ErrorCode::kNotFound) {
    return matmul.error();
  }
  return limits;
}

}  // namespace billfish
