// A matrix on a GPU that the checkpoint keeps in fp32 or fp16, for bf16 activations: what Linear refuses because no tensor core takes it.
#pragma once

#include "billfish/context.h"
#include "billfish/cuda.h"
#include "billfish/tensor.h"
#include "billfish/weight.h"
#include "cuda/model_ops.h"

namespace billfish::model {

class CudaPlainLinear {
 public:
  /// Whether the scheme is one of the two.
  static bool Takes(const QuantScheme& scheme) { return scheme.codes == CodeBook::kF32 || scheme.codes == CodeBook::kF16; }

  /// Uploads the weight, which may be dropped afterwards. bias: empty or [N].
  static Result<CudaPlainLinear> Create(const PackedWeight& weight, std::span<const float> bias, Device device);

  /// As Linear::Forward with x bf16 and y f32; needs no workspace.
  Status Forward(ConstTensorView x, TensorView y, CudaStream stream) const;

  static constexpr std::string_view kName = "linear_plain";
  int64_t N() const { return N_; }
  int64_t K() const { return K_; }
  size_t bytes() const { return weight_.bytes() + bias_.bytes(); }
  size_t weight_bytes() const { return weight_.bytes(); }

 private:
  cuda::LinearPlain kernel_;
  DeviceBuffer weight_, bias_;
  bool f32_ = false;
  int64_t N_ = 0, K_ = 0;
};

}  // namespace billfish::model
