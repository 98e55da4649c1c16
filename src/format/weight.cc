#include "billfish/weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/float_formats.h"
#include "core/status_macros.h"
#include "format/scale_codec.h"
#include "format/scheme_rules.h"

namespace billfish {
namespace {

using format::PlainSizes;

Status CheckSize(const char* array, const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, size_t found, int64_t expected,
                 const char* unit) {
  if (found == static_cast<size_t>(expected)) return OkStatus();
  return {ErrorCode::kShapeMismatch, fmt::format("{} of a {} weight [{}, {}, {}] must hold {} {}; {} were given", array, scheme.Name(), E,
                                                 N, K, expected, unit, found)};
}

// Names "expert 1, row block 3, group 7" for scale number i.
std::string ScalePlace(const PlainSizes& sizes, int64_t i) {
  return fmt::format("expert {}, row block {}, group {}", i / (sizes.scale_rows * sizes.groups), i / sizes.groups % sizes.scale_rows,
                     i % sizes.groups);
}

// Index of the first of `count` numbers (which may be unaligned) that is bad, or -1. Works in blocks so that sound data is scanned in
// vectors: whole weights pass through here when a checkpoint is loaded.
template <class T, class IsBad>
int64_t FirstBad(const Bytes& bytes, int64_t count, IsBad is_bad) {
  constexpr int64_t kBlock = 4096;
  const auto load = [&](int64_t i) {
    T value;
    std::memcpy(&value, bytes.data() + i * static_cast<int64_t>(sizeof(T)), sizeof value);
    return value;
  };
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    unsigned bad = 0;
    for (int64_t i = begin; i < end; ++i) bad |= is_bad(load(i)) ? 1u : 0u;
    if (bad == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (is_bad(load(i))) return i;
    }
  }
  return -1;
}

// An exponent of nothing but ones is infinity or NaN; E4M3 keeps one such pattern and E8M0 one byte for NaN.
int64_t FirstBadScale(DType dtype, const Bytes& scales, int64_t count) {
  switch (dtype) {
    case DType::kF8E8M0:
      return FirstBad<uint8_t>(scales, count, [](uint8_t v) { return v == 0xFF; });
    case DType::kF8E4M3:
      return FirstBad<uint8_t>(scales, count, [](uint8_t v) { return IsE4M3Nan(v); });
    case DType::kBF16:
      return FirstBad<uint16_t>(scales, count, [](uint16_t v) { return (v & 0x7F80) == 0x7F80; });
    case DType::kF16:
      return FirstBad<uint16_t>(scales, count, [](uint16_t v) { return (v & 0x7C00) == 0x7C00; });
    default:
      return FirstBad<uint32_t>(scales, count, [](uint32_t v) { return (v & 0x7F800000u) == 0x7F800000u; });
  }
}

Status CheckScales(const QuantScheme& scheme, const PlainSizes& sizes, const Bytes& scales) {
  const int64_t i = FirstBadScale(scheme.scale, scales, sizes.scales);
  if (i < 0) return OkStatus();
  std::string found = fmt::format("{}", format::LoadScale(scheme.scale, scales.data(), i));
  if (DTypeBits(scheme.scale) == 8) found = fmt::format("byte 0x{:02X} (NaN)", static_cast<unsigned>(scales.data()[i]));
  return {ErrorCode::kCorruptFile,
          fmt::format("the {} scale of {} is {}; a scale must be a finite number", DTypeName(scheme.scale), ScalePlace(sizes, i), found)};
}

Status CheckZeros(const PlainSizes& sizes, const Bytes& zeros) {
  const int64_t i = FirstBad<uint8_t>(zeros, sizes.zeros_bytes, [](uint8_t zero) { return zero > 16; });
  if (i < 0) return OkStatus();
  return {ErrorCode::kCorruptFile,
          fmt::format("the zero point of {} is {}; it must be 0 to 16", ScalePlace(sizes, i), static_cast<unsigned>(zeros.data()[i]))};
}

Status CheckCodes(const QuantScheme& scheme, const PlainSizes& sizes, int64_t N, int64_t K, const Bytes& codes) {
  if (scheme.codes == CodeBook::kE4M3) {
    const int64_t i = FirstBad<uint8_t>(codes, sizes.codes_bytes, [](uint8_t code) { return IsE4M3Nan(code); });
    if (i < 0) return OkStatus();
    return {ErrorCode::kCorruptFile, fmt::format("the E4M3 code of expert {}, row {}, k {} is 0x{:02X} (NaN); a weight must be a number",
                                                 i / K / N, i / K % N, i % K, static_cast<unsigned>(codes.data()[i]))};
  }
  if (CodeBits(scheme.codes) == 4 && K % 2 == 1) {
    for (int64_t last = sizes.row_bytes - 1; last < sizes.codes_bytes; last += sizes.row_bytes) {
      const unsigned nibble = static_cast<unsigned>(codes.data()[last]) >> 4;
      if (nibble == 0) continue;
      return {ErrorCode::kCorruptFile,
              fmt::format("the last high nibble of expert {}, row {} is {}; K = {} is odd, so it pads and must be 0",
                          last / sizes.row_bytes / N, last / sizes.row_bytes % N, nibble, K)};
    }
  }
  return OkStatus();
}

Status CheckPerm(int64_t E, int64_t K, const std::vector<int32_t>& perm) {
  std::vector<bool> seen;
  for (int64_t e = 0; e < E; ++e) {
    seen.assign(static_cast<size_t>(K), false);
    for (int64_t j = 0; j < K; ++j) {
      const int32_t k = perm[static_cast<size_t>(e * K + j)];
      if (k >= 0 && k < K && !seen[static_cast<size_t>(k)]) {
        seen[static_cast<size_t>(k)] = true;
        continue;
      }
      return {ErrorCode::kShapeMismatch, fmt::format("perm of expert {} is no permutation of 0..{}: entry {} is {}, which is {}", e, K - 1,
                                                     j, k, k < 0 || k >= K ? "out of range" : "there twice")};
    }
  }
  return OkStatus();
}

}  // namespace

Bytes Bytes::Own(std::vector<std::byte> bytes) { return Own<std::byte>(std::move(bytes)); }

Result<PackedWeight> PackedWeight::FromParts(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, WeightParts parts) {
  BILLFISH_RETURN_IF_ERROR(format::CheckScheme(scheme));
  PackedWeight weight;
  weight.scheme_ = format::Canonical(scheme);
  BILLFISH_ASSIGN_OR_RETURN(const PlainSizes sizes, format::SizesOf(weight.scheme_, E, N, K));
  const auto check = [&](const char* array, size_t found, int64_t expected, const char* unit) {
    return CheckSize(array, scheme, E, N, K, found, expected, unit);
  };
  BILLFISH_RETURN_IF_ERROR(check("codes", parts.codes.size(), sizes.codes_bytes, "bytes"));
  BILLFISH_RETURN_IF_ERROR(check("scales", parts.scales.size(), sizes.scales_bytes, "bytes"));
  BILLFISH_RETURN_IF_ERROR(check("zeros", parts.zeros.size(), sizes.zeros_bytes, "bytes"));
  BILLFISH_RETURN_IF_ERROR(check("row_scale", parts.row_scale.size(), sizes.row_scales, "numbers"));
  BILLFISH_RETURN_IF_ERROR(CheckScales(weight.scheme_, sizes, parts.scales));
  BILLFISH_RETURN_IF_ERROR(CheckZeros(sizes, parts.zeros));
  BILLFISH_RETURN_IF_ERROR(CheckCodes(weight.scheme_, sizes, N, K, parts.codes));
  for (size_t i = 0; i < parts.row_scale.size(); ++i) {
    if (std::isfinite(parts.row_scale[i])) continue;
    return Status(ErrorCode::kCorruptFile, fmt::format("the row scale of expert {}, row {} is {}; it must be a finite number",
                                                       static_cast<int64_t>(i) / N, static_cast<int64_t>(i) % N, parts.row_scale[i]));
  }
  if (!parts.perm.empty()) {
    if (parts.perm.size() / static_cast<size_t>(K) != static_cast<size_t>(E) || parts.perm.size() % static_cast<size_t>(K) != 0) {
      return Status(ErrorCode::kShapeMismatch, fmt::format("perm of a weight [{}, {}, {}] must hold {} x {} numbers; {} were given", E, N,
                                                           K, E, K, parts.perm.size()));
    }
    BILLFISH_RETURN_IF_ERROR(CheckPerm(E, K, parts.perm));
  }
  weight.E_ = E;
  weight.N_ = N;
  weight.K_ = K;
  weight.parts_ = std::move(parts);
  return weight;
}

Result<PackedWeight> PackedWeight::Expert(int64_t e) const {
  if (e < 0 || e >= E_) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("expert {} was asked for; the weight has experts 0..{}", e, E_ - 1));
  }
  // The parts were checked when this weight was made.
  PackedWeight expert;
  expert.scheme_ = scheme_;
  expert.E_ = 1;
  expert.N_ = N_;
  expert.K_ = K_;
  const auto slice = [&](const Bytes& all) {
    const size_t count = all.size() / static_cast<size_t>(E_);
    return all.Slice(count * static_cast<size_t>(e), count);
  };
  expert.parts_.codes = slice(parts_.codes);
  expert.parts_.scales = slice(parts_.scales);
  expert.parts_.zeros = slice(parts_.zeros);
  if (!parts_.row_scale.empty()) expert.parts_.row_scale.assign(parts_.row_scale.begin() + e * N_, parts_.row_scale.begin() + (e + 1) * N_);
  if (!parts_.perm.empty()) expert.parts_.perm.assign(parts_.perm.begin() + e * K_, parts_.perm.begin() + (e + 1) * K_);
  return expert;
}

int64_t PackedWeight::groups() const { return scheme_.has_scale() ? format::BlockCount(K_, scheme_.group) : 1; }

int64_t PackedWeight::scale_rows() const { return scheme_.has_scale() ? format::BlockCount(N_, scheme_.group_rows) : 1; }

int64_t PackedWeight::row_bytes() const { return (K_ * CodeBits(scheme_.codes) + 7) / 8; }

size_t PackedWeight::bytes() const {
  return parts_.codes.size() + parts_.scales.size() + parts_.zeros.size() + parts_.row_scale.size() * sizeof(float) +
         parts_.perm.size() * sizeof(int32_t);
}

}  // namespace billfish
