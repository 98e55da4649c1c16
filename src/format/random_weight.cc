// PackedWeight::Random: codes and scales straight in packed form, since quantising random numbers would only cost time.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>

#include "billfish/context.h"
#include "billfish/weight.h"
#include "core/float_formats.h"
#include "core/parallel.h"
#include "core/rounding.h"
#include "core/status_macros.h"
#include "format/scheme_rules.h"

namespace billfish {
namespace {

/// Word `index` of a stream. A function of the index, so that threads can begin anywhere (splitmix64: Steele, Lea, Flood 2014).
uint64_t RandomWord(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

/// `count` bytes, eight at a time, each word (random & keep) | set.
std::shared_ptr<std::byte[]> RandomBytes(int64_t count, uint64_t seed, uint64_t keep, uint64_t set, int threads) {
  // Uninitialised: a pass of zeros would cost as much as the numbers.
  std::shared_ptr<std::byte[]> data(new std::byte[static_cast<size_t>(count)]);
  constexpr int64_t kGrain = 4096;
  ParallelFor(threads, DivideUp(count, 8), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint64_t word = (RandomWord(seed, static_cast<uint64_t>(i)) & keep) | set;
      std::memcpy(data.get() + i * 8, &word, static_cast<size_t>(std::min<int64_t>(8, count - i * 8)));
    }
  });
  return data;
}

Bytes Share(std::shared_ptr<std::byte[]> data, int64_t count) {
  const std::span<const std::byte> view(data.get(), static_cast<size_t>(count));
  return {std::shared_ptr<const void>(std::move(data), view.data()), view};
}

/// The root mean square of decode(code) for the codes that are drawn.
float CodeRms(const QuantScheme& scheme) {
  double sum = 0;
  switch (scheme.codes) {
    case CodeBook::kInt4:
      // q uniform in 0..15, minus 8 or minus a zero point uniform in 0..15.
      return scheme.zero == ZeroPoint::kPerGroup ? 6.52F : 4.64F;
    case CodeBook::kE2M1:
      for (const float value : kE2M1Values) sum += value * value / 16;
      return static_cast<float>(std::sqrt(sum));
    case CodeBook::kE4M3:
      for (int code = 0; code < 256; ++code) {
        const float value = F32FromE4M3(static_cast<uint8_t>(code & 0xB7));
        sum += value * value / 256;
      }
      return static_cast<float>(std::sqrt(sum));
    default:
      return 1.0F;
  }
}

/// A float of 16 or 32 bits with a random sign and mantissa whose root mean square is near `rms`: the bits that vary and those that do not.
struct FloatBits {
  uint64_t keep, set;
};
FloatBits BitsOfFloats(CodeBook codes, float rms) {
  // Uniform in [1, 2) times 2^e has a root mean square of 1.53 * 2^e.
  const int exponent = static_cast<int>(std::lround(std::log2(rms / 1.53F)));
  if (codes == CodeBook::kF32) {
    const auto e = static_cast<uint64_t>(std::clamp(127 + exponent, 1, 254)) << 23;
    return {0x807FFFFF807FFFFFULL, e | e << 32};
  }
  const bool bf16 = codes == CodeBook::kBF16;
  const uint64_t e =
      bf16 ? static_cast<uint64_t>(std::clamp(127 + exponent, 1, 254)) << 7 : static_cast<uint64_t>(std::clamp(15 + exponent, 1, 30)) << 10;
  return {(bf16 ? 0x807FULL : 0x83FFULL) * 0x0001000100010001ULL, e * 0x0001000100010001ULL};
}

/// Scales around `mean`, within a factor of 1.5 of it as far as their type allows.
Bytes RandomScales(int64_t count, DType dtype, float mean, uint64_t seed, int threads) {
  const auto size = static_cast<size_t>(DTypeBits(dtype) / 8);
  std::vector<std::byte> data(static_cast<size_t>(count) * size);
  ParallelFor(threads, count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint64_t word = RandomWord(seed, static_cast<uint64_t>(i));
      const float value = mean * (0.75F + static_cast<float>(word >> 40) * 0x1p-25F);
      uint32_t bits = std::bit_cast<uint32_t>(value);
      if (dtype == DType::kF8E8M0) bits = std::clamp<uint32_t>(((bits >> 22) + 1) >> 1, 1, 254);  // the nearer power of two, roughly
      if (dtype == DType::kF8E4M3) bits = std::max<uint32_t>(E4M3FromF32(value), 1);
      if (dtype == DType::kBF16) bits = BF16FromF32(value);
      if (dtype == DType::kF16) bits = F16FromF32(value);
      std::memcpy(data.data() + static_cast<size_t>(i) * size, &bits, size);
    }
  });
  return Bytes::Own(std::move(data));
}

}  // namespace

Result<PackedWeight> PackedWeight::Random(const QuantScheme& asked, int64_t E, int64_t N, int64_t K, uint64_t seed, int threads) {
  BILLFISH_RETURN_IF_ERROR(format::CheckScheme(asked));
  const QuantScheme scheme = format::Canonical(asked);
  BILLFISH_ASSIGN_OR_RETURN(const format::PlainSizes sizes, format::SizesOf(scheme, E, N, K));
  if (threads <= 0) threads = DefaultThreads();
  const int bits = CodeBits(scheme.codes);
  const float rms = 1.0F / std::sqrt(static_cast<float>(K));
  uint64_t keep = ~uint64_t{0}, set = 0;
  if (scheme.codes == CodeBook::kE4M3) keep = 0xB7B7B7B7B7B7B7B7ULL;  // below 1, never NaN
  if (bits >= 16) {
    const FloatBits floats = BitsOfFloats(scheme.codes, rms);
    keep = floats.keep, set = floats.set;
  }
  WeightParts parts;
  const std::shared_ptr<std::byte[]> codes = RandomBytes(sizes.codes_bytes, seed, keep, set, threads);
  if (bits == 4 && K % 2 == 1) {
    for (int64_t last = sizes.row_bytes - 1; last < sizes.codes_bytes; last += sizes.row_bytes) codes[last] &= std::byte{0x0F};
  }
  parts.codes = Share(codes, sizes.codes_bytes);
  if (scheme.has_scale()) {
    const float scale = rms / CodeRms(scheme);
    // The stored scales are near 1 where a row scale can carry the size.
    parts.scales = RandomScales(sizes.scales, scheme.scale, scheme.row_scale ? 1.0F : scale, seed ^ 0x5CA1E5ULL, threads);
    parts.row_scale.assign(static_cast<size_t>(sizes.row_scales), scale);
    if (scheme.zero == ZeroPoint::kPerGroup) {
      parts.zeros = Share(RandomBytes(sizes.zeros_bytes, seed ^ 0x2E805ULL, 0x0F0F0F0F0F0F0F0FULL, 0, threads), sizes.zeros_bytes);
    }
  }
  return FromParts(scheme, E, N, K, std::move(parts));
}

}  // namespace billfish
