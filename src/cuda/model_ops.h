// Everything of a model's forward call on a GPU that is not a quantised matrix: typed launches of the kernels in model_args.h.
//
// Attention is billfish's own rather than a library's: the decode kernel reads the position from device memory, so that one recorded graph
// serves a growing sequence; sliding windows and sinks are part of it; and a process needs nothing but the driver and NVRTC.
// All calls are ordered on the stream, return at once, allocate nothing and are deterministic. Pointers are device memory.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/device.h"
#include "cuda/jit.h"
#include "cuda/model_args.h"

namespace billfish::cuda {

class ModelOps {
 public:
  /// Loads the kernels for heads of head_dim values. kUnsupported unless it is a multiple of 16 up to 256; the errors of LoadKernel.
  static Result<ModelOps> Create(const GpuDevice& device, int64_t head_dim);

  Status Embedding(const EmbeddingArgs& args, CUstream stream) const;
  Status RmsNorm(const RmsNormArgs& args, CUstream stream) const;
  /// args.D must be the head_dim of Create.
  Status Rope(const RopeArgs& args, CUstream stream) const;
  /// Rope included.
  Status AttentionDecode(const AttentionDecodeArgs& args, CUstream stream) const;
  Status AttentionPrefill(const AttentionArgs& args, CUstream stream) const;
  Status Swiglu(const SwigluArgs& args, CUstream stream) const;
  Status Argmax(const ArgmaxArgs& args, CUstream stream) const;

 private:
  int head_dim_ = 0;
  bool has_clusters_ = false;
  uint32_t decode_shared_bytes_ = 0;
  LoadedKernel embedding_, rms_norm_, rope_, attention_decode_, attention_prefill_, swiglu_, argmax_;
};

/// One matrix of fp32, fp16 or bf16, see LinearPlainArgs.
class LinearPlain {
 public:
  static Result<LinearPlain> Create(const GpuDevice& device);
  Status Run(const LinearPlainArgs& args, CUstream stream) const;

 private:
  LoadedKernel kernel_;
};

/// For kernel_list.h: the kernels of all models, attention for the head dimensions that released models have.
void AppendModelOpsSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
