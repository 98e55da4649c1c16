// QuantScheme: what the stored numbers of a weight mean. Where the bits lie in a file is the checkpoint layer's business.
//
//   w[n,k] = decode(code[n,k], zero[n,g]) * scale[n / group_rows, g] * row_scale[n]        g = k / group
//
// decode() is q - zero for kInt4 (q = 0..15; zero = 8 when symmetric) and the value of the code otherwise.
// Sources: OCP Microscaling Formats v1.0 (E2M1, E8M0, MXFP4), OCP FP8 (E4M3), NVFP4 as written by ModelOpt and compressed-tensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "billfish/status.h"
#include "billfish/tensor.h"

namespace billfish {

/// What one stored code is.
enum class CodeBook : uint8_t {
  kInt4,  ///< unsigned nibble q, value q - zero
  kE2M1,  ///< nibble: 0 .5 1 1.5 2 3 4 6 and the same negated
  kE4M3,  ///< one byte, OCP FP8 E4M3FN
  kBF16,  ///< 16 bits, no scale
  kF16,   ///< 16 bits, no scale
  kF32,   ///< 32 bits, no scale
};

/// Bits of one code: 4, 8, 16 or 32.
int CodeBits(CodeBook codes);

enum class ZeroPoint : uint8_t {
  kNone,      ///< kInt4: zero = 8. Other code books have no zero point.
  kPerGroup,  ///< kInt4 only: one byte 0..16 per scale
};

struct QuantScheme {
  CodeBook codes = CodeBook::kF32;
  int64_t group = 0;          ///< consecutive k that share a scale; 0 = the whole row
  int64_t group_rows = 1;     ///< consecutive n that share a scale; 0 = all rows
  DType scale = DType::kF32;  ///< kF8E8M0, kF8E4M3, kBF16, kF16 or kF32; meaningless for 16/32-bit codes
  ZeroPoint zero = ZeroPoint::kNone;
  bool row_scale = false;  ///< an extra fp32 factor per output row (NVFP4's global scale lives here)

  bool operator==(const QuantScheme&) const = default;
  bool has_scale() const { return CodeBits(codes) <= 8; }
  /// "mxfp4", "nvfp4", "int4-g128", "int4-g32-asym", "int4-channel", "fp8-block128", "fp8-tensor", "bf16", ...
  std::string Name() const;
};

namespace schemes {
inline constexpr QuantScheme kMxfp4{CodeBook::kE2M1, 32, 1, DType::kF8E8M0, ZeroPoint::kNone, false};
inline constexpr QuantScheme kNvfp4{CodeBook::kE2M1, 16, 1, DType::kF8E4M3, ZeroPoint::kNone, true};
constexpr QuantScheme Int4(int64_t group, bool symmetric, DType scale = DType::kBF16) {
  return {CodeBook::kInt4, group, 1, scale, symmetric ? ZeroPoint::kNone : ZeroPoint::kPerGroup, false};
}
inline constexpr QuantScheme kFp8Tensor{CodeBook::kE4M3, 0, 0, DType::kF32, ZeroPoint::kNone, false};
inline constexpr QuantScheme kFp8Channel{CodeBook::kE4M3, 0, 1, DType::kF32, ZeroPoint::kNone, false};
inline constexpr QuantScheme kFp8Block128{CodeBook::kE4M3, 128, 128, DType::kF32, ZeroPoint::kNone, false};
inline constexpr QuantScheme kBf16{CodeBook::kBF16, 0, 1, DType::kF32, ZeroPoint::kNone, false};
inline constexpr QuantScheme kF16{CodeBook::kF16, 0, 1, DType::kF32, ZeroPoint::kNone, false};
inline constexpr QuantScheme kF32{CodeBook::kF32, 0, 1, DType::kF32, ZeroPoint::kNone, false};
}  // namespace schemes

/// A name as a user types it -> scheme: mxfp4 | nvfp4 | int4-g32 | int4-g64 | int4-g128 | int4-channel (each int4 also with "-asym")
/// | fp8-tensor | fp8-channel | fp8-block128 | bf16 | f16 | f32. An unknown name is kInvalidArgument and lists these.
Result<QuantScheme> SchemeByName(std::string_view name);
/// Every name SchemeByName accepts.
std::span<const std::string_view> SchemeNames();

}  // namespace billfish
