// y of an expert block in the type that its caller wants: what the kernels that add up experts read (the addend) and write.
#pragma once

#include "cuda/kernels/numbers.cuh"
#include "cuda/moe_args.h"

namespace billfish::cuda {

/// Args: addend, y and y_type as in GroupedDecodeArgs.
template <class Args>
__device__ __forceinline__ float LoadAddend(const Args& args, int64_t i) {
  if (args.y_type == OutType::kF32) return static_cast<const float*>(args.addend)[i];
  const uint32_t bits = static_cast<const uint16_t*>(args.addend)[i];
  return args.y_type == OutType::kBF16 ? FloatFromBF16(bits) : FloatFromF16(bits);
}

template <class Args>
__device__ __forceinline__ void StoreY(const Args& args, int64_t i, float value) {
  if (args.y_type == OutType::kF32) {
    static_cast<float*>(args.y)[i] = value;
  } else {
    const uint32_t pair = args.y_type == OutType::kBF16 ? BF16PairFromFloats(value, 0.0f) : F16PairFromFloats(value, 0.0f);
    static_cast<uint16_t*>(args.y)[i] = static_cast<uint16_t>(pair & 0xffffu);
  }
}

}  // namespace billfish::cuda
