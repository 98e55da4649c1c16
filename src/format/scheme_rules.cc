#include "format/scheme_rules.h"

#include <fmt/format.h>

#include <initializer_list>

#include "format/scale_codec.h"

namespace billfish::format {
namespace {

Status Meaningless(const std::string& what) { return {ErrorCode::kInvalidArgument, "the scheme means nothing: " + what}; }

// Product of non-negative factors, or -1 where it does not fit.
int64_t Product(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t factor : factors) {
    if (__builtin_mul_overflow(product, factor, &product)) return -1;
  }
  return product;
}

}  // namespace

Status CheckScheme(const QuantScheme& scheme) {
  if (static_cast<uint8_t>(scheme.codes) > static_cast<uint8_t>(CodeBook::kF32)) {
    return Meaningless(fmt::format("{} is no code book", static_cast<int>(scheme.codes)));
  }
  if (static_cast<uint8_t>(scheme.zero) > static_cast<uint8_t>(ZeroPoint::kPerGroup)) {
    return Meaningless(fmt::format("{} is no kind of zero point", static_cast<int>(scheme.zero)));
  }
  if (scheme.zero == ZeroPoint::kPerGroup && scheme.codes != CodeBook::kInt4) {
    return Meaningless("a zero point belongs to int4 codes; use ZeroPoint::kNone");
  }
  if (!scheme.has_scale()) {
    if (scheme.row_scale) return Meaningless("16- and 32-bit codes have no row scale; multiply it into the values");
    return OkStatus();
  }
  if (scheme.group < 0) return Meaningless(fmt::format("group is {}; use a positive number, or 0 for the whole row", scheme.group));
  if (scheme.group_rows < 0) {
    return Meaningless(fmt::format("group_rows is {}; use a positive number, or 0 for all rows", scheme.group_rows));
  }
  if (!IsScaleDType(scheme.scale)) {
    return Meaningless(fmt::format("{} scales; use F8_E8M0, F8_E4M3, BF16, F16 or F32", DTypeName(scheme.scale)));
  }
  return OkStatus();
}

QuantScheme Canonical(QuantScheme scheme) {
  if (!scheme.has_scale()) return QuantScheme{scheme.codes, 0, 1, DType::kF32, ZeroPoint::kNone, false};
  return scheme;
}

Result<PlainSizes> SizesOf(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K) {
  if (E < 1 || N < 1 || K < 1) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a weight of E = {}, N = {}, K = {} was asked for; each must be at least 1", E, N, K));
  }
  const Status too_large(ErrorCode::kInvalidArgument,
                         fmt::format("a weight of E = {}, N = {}, K = {} has more bytes than a 63-bit number can count", E, N, K));
  PlainSizes sizes;
  const int64_t bits = Product({K, CodeBits(scheme.codes)});
  if (bits < 0 || K > INT64_MAX - scheme.group || N > INT64_MAX - scheme.group_rows) return too_large;
  sizes.row_bytes = bits / 8 + (bits % 8 != 0 ? 1 : 0);
  sizes.groups = BlockCount(K, scheme.group);
  sizes.scale_rows = BlockCount(N, scheme.group_rows);
  sizes.codes_bytes = Product({E, N, sizes.row_bytes});
  if (sizes.codes_bytes < 0) return too_large;
  if (scheme.has_scale()) {
    sizes.scales = Product({E, sizes.scale_rows, sizes.groups});
    sizes.scales_bytes = sizes.scales < 0 ? -1 : Product({sizes.scales, DTypeBits(scheme.scale) / 8});
    if (sizes.scales_bytes < 0) return too_large;
    if (scheme.zero == ZeroPoint::kPerGroup) sizes.zeros_bytes = sizes.scales;
    if (scheme.row_scale) sizes.row_scales = Product({E, N});
  } else {
    sizes.groups = 1;
    sizes.scale_rows = 1;
  }
  return sizes;
}

}  // namespace billfish::format
