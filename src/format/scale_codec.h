// One stored scale <-> fp32, for every dtype a scale may have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "billfish/tensor.h"
#include "core/float_formats.h"

namespace billfish::format {

inline bool IsScaleDType(DType dtype) {
  return dtype == DType::kF8E8M0 || dtype == DType::kF8E4M3 || dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32;
}

/// The value of scale number `index` of an array that may be unaligned. Precondition: IsScaleDType(dtype).
inline float LoadScale(DType dtype, const std::byte* scales, int64_t index) {
  uint16_t half = 0;
  float single = 0;
  switch (dtype) {
    case DType::kF8E8M0:
      return F32FromE8M0(static_cast<uint8_t>(scales[index]));
    case DType::kF8E4M3:
      return F32FromE4M3(static_cast<uint8_t>(scales[index]));
    case DType::kBF16:
      std::memcpy(&half, scales + index * 2, sizeof half);
      return F32FromBF16(half);
    case DType::kF16:
      std::memcpy(&half, scales + index * 2, sizeof half);
      return F32FromF16(half);
    default:
      std::memcpy(&single, scales + index * 4, sizeof single);
      return single;
  }
}

/// Rounds `scale` (>= 0, finite) to the dtype and stores it as number `index`; returns the value that was stored. E8M0 takes the
/// smallest power of two that is not below it; the others round to nearest and saturate at their largest finite value.
float StoreScale(DType dtype, float scale, std::byte* scales, int64_t index);

/// What StoreScale would store.
float RoundScale(DType dtype, float scale);

}  // namespace billfish::format
