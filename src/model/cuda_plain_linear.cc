#include "model/cuda_plain_linear.h"

#include "core/status_macros.h"

namespace billfish::model {

Result<CudaPlainLinear> CudaPlainLinear::Create(const PackedWeight& weight, std::span<const float> bias, Device device) {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuDevice::Get(device.index));
  CudaPlainLinear linear;
  BILLFISH_ASSIGN_OR_RETURN(linear.kernel_, cuda::LinearPlain::Create(*gpu));
  linear.type_ = weight.scheme().codes == CodeBook::kF32   ? cuda::PlainType::kF32
                 : weight.scheme().codes == CodeBook::kF16 ? cuda::PlainType::kF16
                                                           : cuda::PlainType::kBF16;
  linear.N_ = weight.N();
  linear.K_ = weight.K();
  const Bytes& codes = weight.parts().codes;
  const auto count = static_cast<int64_t>(codes.size());
  BILLFISH_ASSIGN_OR_RETURN(linear.weight_, DeviceBuffer::Allocate(device, codes.size()));
  BILLFISH_RETURN_IF_ERROR(CopyTensor({linear.weight_.data(), DType::kU8, {count}, device}, {codes.data(), DType::kU8, {count}}));
  if (!bias.empty()) {
    const auto rows = static_cast<int64_t>(bias.size());
    BILLFISH_ASSIGN_OR_RETURN(linear.bias_, DeviceBuffer::Allocate(device, bias.size() * sizeof(float)));
    BILLFISH_RETURN_IF_ERROR(CopyTensor({linear.bias_.data(), DType::kF32, {rows}, device}, {bias.data(), DType::kF32, {rows}}));
  }
  return linear;
}

Status CudaPlainLinear::Forward(ConstTensorView x, TensorView y, CudaStream stream) const {
  cuda::LinearPlainArgs args;
  args.x = x.as<uint16_t>();
  args.weight = weight_.data();
  args.bias = reinterpret_cast<const float*>(bias_.data());
  args.y = y.as<float>();
  args.x_stride = x.stride(0);
  args.y_stride = y.stride(0);
  args.type = type_;
  args.M = static_cast<int32_t>(x.dim(0));
  args.N = static_cast<int32_t>(N_);
  args.K = static_cast<int32_t>(K_);
  return kernel_.Run(args, static_cast<cuda::CUstream>(stream));
}

}  // namespace billfish::model
