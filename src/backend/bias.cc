#include "backend/bias.h"

#include <fmt/format.h>

#include "core/float_formats.h"
#include "core/status_macros.h"

namespace billfish::backend {
namespace {

float LoadFloat(const ConstTensorView& view, int64_t i) {
  if (view.dtype() == DType::kF32) return view.as<float>()[i];
  const uint16_t bits = view.as<uint16_t>()[i];
  return view.dtype() == DType::kBF16 ? F32FromBF16(bits) : F32FromF16(bits);
}

Status CheckBias(const ConstTensorView& bias, const Problem& weight) {
  const bool right = weight.op == Op::kLinear ? bias.rank() == 1 && bias.dim(0) == weight.N
                                              : bias.rank() == 2 && bias.dim(0) == weight.E && bias.dim(1) == weight.N;
  if (!right || !bias.is_contiguous()) {
    const std::string shape = weight.op == Op::kLinear ? fmt::format("[{}]", weight.N) : fmt::format("[{}, {}]", weight.E, weight.N);
    return {ErrorCode::kShapeMismatch, fmt::format("the bias of a weight [{}, {}, {}] is {}; give a contiguous {}", weight.E, weight.N,
                                                   weight.K, bias.ToString(), shape)};
  }
  if (bias.dtype() != DType::kF32 && bias.dtype() != DType::kF16 && bias.dtype() != DType::kBF16) {
    return {ErrorCode::kInvalidArgument, fmt::format("the bias is {}; give f32, f16 or bf16 numbers", bias.ToString())};
  }
  return OkStatus();
}

}  // namespace

Result<std::vector<float>> ReadBias(const ConstTensorView& bias, const Problem& problem) {
  if (bias.data() == nullptr) return std::vector<float>();
  BILLFISH_RETURN_IF_ERROR(CheckBias(bias, problem));
  std::vector<float> values(static_cast<size_t>(bias.num_elements()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = LoadFloat(bias, static_cast<int64_t>(i));
  return values;
}

}  // namespace billfish::backend
