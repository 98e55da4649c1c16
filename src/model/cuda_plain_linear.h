// A matrix on a GPU as the checkpoint stores it, for bf16 activations: fp32 and fp16, which Linear refuses because no tensor core takes
// them beside bf16, and few rows of x by a small bf16 matrix (a router), where Linear's kernels would leave most of the GPU idle.
#pragma once

#include "billfish/context.h"
#include "billfish/cuda.h"
#include "billfish/tensor.h"
#include "billfish/weight.h"
#include "cuda/model_ops.h"

namespace billfish::model {

class CudaPlainLinear {
 public:
  /// Whether Linear has no kernel for the scheme and this class has.
  static bool Replaces(const QuantScheme& scheme) { return scheme.codes == CodeBook::kF32 || scheme.codes == CodeBook::kF16; }
  /// Whether calls of up to kFewRows rows should run here rather than by Linear.
  static bool HelpsFewRows(const PackedWeight& weight) { return weight.scheme().codes == CodeBook::kBF16 && weight.N() <= 512; }
  static constexpr int64_t kFewRows = 8;

  /// Uploads the weight, which may be dropped afterwards. bias: empty or [N].
  static Result<CudaPlainLinear> Create(const PackedWeight& weight, std::span<const float> bias, Device device);

  /// As Linear::Forward with x bf16 and y f32; needs no workspace.
  Status Forward(ConstTensorView x, TensorView y, CudaStream stream) const;

  static constexpr std::string_view kName = "linear_plain";
  cuda::PlainType type() const { return type_; }
  const void* weight() const { return weight_.data(); }                               ///< [N][K]
  const float* bias() const { return reinterpret_cast<const float*>(bias_.data()); }  ///< [N] or null
  int64_t N() const { return N_; }
  int64_t K() const { return K_; }
  size_t bytes() const { return weight_.bytes() + bias_.bytes(); }
  size_t weight_bytes() const { return weight_.bytes(); }

 private:
  cuda::LinearPlain kernel_;
  DeviceBuffer weight_, bias_;
  cuda::PlainType type_ = cuda::PlainType::kF32;
  int64_t N_ = 0, K_ = 0;
};

}  // namespace billfish::model
