#include "format/scale_codec.h"

#include <algorithm>
#include <array>
#include <bit>

namespace billfish::format {
namespace {

uint8_t CeilE8M0(float scale) {
  const auto bits = std::bit_cast<uint32_t>(scale);
  if (bits <= std::bit_cast<uint32_t>(0x1p-127f)) return 0;
  const uint32_t exponent = bits >> 23;  // biased; 0 for the other subnormals, which need 2^-126
  const uint32_t above = (bits & 0x7FFFFFu) != 0 ? 1 : 0;
  return static_cast<uint8_t>(std::min<uint32_t>(exponent + above, 254));
}

}  // namespace

float StoreScale(DType dtype, float scale, std::byte* scales, int64_t index) {
  switch (dtype) {
    case DType::kF8E8M0:
      scales[index] = static_cast<std::byte>(CeilE8M0(scale));
      break;
    case DType::kF8E4M3:
      scales[index] = static_cast<std::byte>(E4M3FromF32(scale));
      break;
    case DType::kBF16: {
      const uint16_t bits = std::min<uint16_t>(BF16FromF32(scale), 0x7F7F);
      std::memcpy(scales + index * 2, &bits, sizeof bits);
      break;
    }
    case DType::kF16: {
      const uint16_t bits = F16FromF32(std::min(scale, kF16Max));
      std::memcpy(scales + index * 2, &bits, sizeof bits);
      break;
    }
    default:
      std::memcpy(scales + index * 4, &scale, sizeof scale);
  }
  return LoadScale(dtype, scales, index);
}

float RoundScale(DType dtype, float scale) {
  std::array<std::byte, 4> stored{};
  return StoreScale(dtype, scale, stored.data(), 0);
}

}  // namespace billfish::format
