// NVIDIA GPUs: what is there, and memory, streams and graphs on them for callers that have no CUDA runtime of their own.
//
// No toolkit is needed to build or to run: libcuda comes with the GPU's driver and libnvrtc is opened when a kernel must be compiled.
// All handles are the driver's own: a CudaStream is a CUstream (cudaStream_t), device pointers are plain addresses, and everything works
// in the device's primary context, which PyTorch and the CUDA runtime use too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "billfish/context.h"
#include "billfish/status.h"
#include "billfish/tensor.h"

namespace billfish {

struct CudaDeviceInfo {
  int index = 0;
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  int sms = 0;               ///< multiprocessors
  size_t memory_bytes = 0;
  size_t l2_bytes = 0;
  size_t shared_bytes = 0;  ///< most shared memory of one block
  int driver_version = 0;   ///< 13000 = CUDA 13.0
};

/// Every GPU that the driver shows. kNotFound with one sentence if there is no driver or no GPU.
Result<std::vector<CudaDeviceInfo>> CudaDevices();

/// Memory on a device. Freed with the object, after all work that was ordered on the device before.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept { Swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    DeviceBuffer taken(std::move(other));
    Swap(taken);
    return *this;
  }
  ~DeviceBuffer();

  /// 256-byte aligned, contents undefined. kOutOfMemory says how much is free.
  static Result<DeviceBuffer> Allocate(Device device, size_t bytes);

  std::span<std::byte> span() const { return {data_, bytes_}; }
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void Swap(DeviceBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
  }
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  Device device_{Device::Kind::kCuda, 0};
};

/// dst = src, byte for byte: same dtype and shape, both contiguous, either side on a device or on the host. Ordered on `stream`; returns
/// when the copy is done if the host takes part, at once if not.
Status CopyTensor(TensorView dst, ConstTensorView src, CudaStream stream = nullptr);

/// A stream of its own, not synchronised with the default stream.
class Stream {
 public:
  Stream() = default;
  Stream(Stream&& other) noexcept { std::swap(stream_, other.stream_), std::swap(device_, other.device_); }
  Stream& operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_), std::swap(device_, other.device_);
    return *this;
  }
  ~Stream();
  static Result<Stream> Create(Device device);
  CudaStream get() const { return stream_; }
  /// Waits for all work on the stream; kDevice with the first error that the work met.
  Status Synchronize() const;

 private:
  CudaStream stream_ = nullptr;
  int device_ = 0;
};

/// Work recorded once and launched many times.
class CudaGraph {
 public:
  CudaGraph() = default;
  CudaGraph(CudaGraph&& other) noexcept { std::swap(graph_, other.graph_); }
  CudaGraph& operator=(CudaGraph&& other) noexcept {
    std::swap(graph_, other.graph_);
    return *this;
  }
  ~CudaGraph();
  /// Records what `record` launches on the stream. An error of `record` ends the capture and is returned.
  static Result<CudaGraph> Capture(const Stream& stream, const std::function<Status()>& record);
  Status Launch(CudaStream stream) const;
  bool empty() const { return graph_ == nullptr; }

 private:
  void* graph_ = nullptr;  ///< CUgraphExec
};

/// Two points on a stream and the time between them.
class CudaTimer {
 public:
  CudaTimer() = default;
  CudaTimer(CudaTimer&& other) noexcept { std::swap(begin_, other.begin_), std::swap(end_, other.end_); }
  CudaTimer& operator=(CudaTimer&& other) noexcept {
    std::swap(begin_, other.begin_), std::swap(end_, other.end_);
    return *this;
  }
  ~CudaTimer();
  static Result<CudaTimer> Create(Device device);
  Status Start(CudaStream stream);
  Status Stop(CudaStream stream);
  /// Waits for Stop's point. Microseconds.
  Result<double> ElapsedUs() const;

 private:
  void* begin_ = nullptr;
  void* end_ = nullptr;
};

}  // namespace billfish
