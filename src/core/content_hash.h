// A 64-bit hash of bytes against accidental damage and accidental equality; not against intent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace billfish {

/// Depends on every byte, the length and the seed. Reads 32 bytes a step, several GB/s.
uint64_t ContentHash(std::span<const std::byte> bytes, uint64_t seed = 0);
inline uint64_t ContentHash(std::string_view text, uint64_t seed = 0) {
  return ContentHash(std::as_bytes(std::span<const char>(text.data(), text.size())), seed);
}

/// The same for large arrays, on `threads` threads; another value than ContentHash, but equal for every number of threads.
uint64_t ContentHashOfBlocks(std::span<const std::byte> bytes, int threads);

}  // namespace billfish
