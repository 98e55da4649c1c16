// What a GPU can do at most, and the 16-bit linear that 4-bit weights are compared with. For benchmarks.
#pragma once

#include <cstdint>
#include <memory>

#include "billfish/context.h"
#include "billfish/cuda.h"
#include "billfish/status.h"

namespace billfish {

/// Operations count 2 per multiply-add.
struct CudaLimits {
  double read_bandwidth = 0;  ///< bytes per second of a kernel that only reads, 2 GB at once
  double bf16_matmul = 0;     ///< operations per second of cuBLASLt, bf16 8192 x 8192 x 8192 on random numbers; 0 without cuBLASLt
};

/// Takes about half a second. Errors of the device; a missing cuBLASLt is none.
Result<CudaLimits> MeasureCudaLimits(Device device);

/// y[M,N] = x[M,K] . W[N,K]^T with bf16 x, W and y and fp32 accumulation, by cuBLASLt's own choice of algorithm.
class CublasLinear {
 public:
  CublasLinear();
  ~CublasLinear();
  CublasLinear(CublasLinear&&) noexcept;
  CublasLinear& operator=(CublasLinear&&) noexcept;

  /// kNotFound if libcublasLt cannot be opened (says what to install), kDevice.
  static Result<CublasLinear> Create(Device device, int64_t M, int64_t N, int64_t K);
  /// x, w, y: contiguous device memory. Stream-ordered, allocates nothing, may be captured in a graph.
  Status Forward(const void* x, const void* w, void* y, CudaStream stream) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace billfish
