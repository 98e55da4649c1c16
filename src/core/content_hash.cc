#include "core/content_hash.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/parallel.h"

namespace billfish {
namespace {

// Odd numbers with about as many ones as zeros.
constexpr uint64_t kMultiply[] = {0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB};
constexpr size_t kLanes = 4;
constexpr size_t kStep = kLanes * sizeof(uint64_t);
constexpr size_t kBlock = size_t{1} << 20;

uint64_t Rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

// A bijection in which every bit of x reaches every bit of the result.
uint64_t Finish(uint64_t x) {
  x = (x ^ x >> 30) * kMultiply[2];
  x = (x ^ x >> 27) * kMultiply[3];
  return x ^ x >> 31;
}

}  // namespace

uint64_t ContentHash(std::span<const std::byte> bytes, uint64_t seed) {
  uint64_t lanes[kLanes];
  for (size_t i = 0; i < kLanes; ++i) lanes[i] = Finish(seed + kMultiply[i]);
  const auto absorb = [&](const std::byte* from) {
    uint64_t words[kLanes];
    std::memcpy(words, from, kStep);
    for (size_t i = 0; i < kLanes; ++i) lanes[i] = Rotate(lanes[i] ^ words[i] * kMultiply[1], 29) * kMultiply[0];
  };
  size_t at = 0;
  for (; at + kStep <= bytes.size(); at += kStep) absorb(bytes.data() + at);
  std::byte rest[kStep] = {};
  std::copy(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end(), rest);
  absorb(rest);
  uint64_t hash = bytes.size();
  for (const uint64_t lane : lanes) hash = Finish(hash * kMultiply[0] ^ lane);
  return hash;
}

uint64_t ContentHashOfBlocks(std::span<const std::byte> bytes, int threads) {
  std::vector<uint64_t> hashes((bytes.size() + kBlock - 1) / kBlock);
  ParallelFor(threads, static_cast<int64_t>(hashes.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      hashes[i] = ContentHash(bytes.subspan(i * kBlock, std::min(kBlock, bytes.size() - i * kBlock)), i);
    }
  });
  return ContentHash(std::as_bytes(std::span<const uint64_t>(hashes)), bytes.size());
}

}  // namespace billfish
