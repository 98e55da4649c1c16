// SHA-256 (FIPS 180-4), for names of cache entries and to notice damaged ones.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace billfish::cuda {

class Sha256 {
 public:
  void Add(std::span<const std::byte> bytes);
  /// Length first, so that {"ab", "c"} and {"a", "bc"} differ.
  void AddField(std::string_view text);
  /// 32 bytes; the object is used up.
  std::array<std::byte, 32> Finish();

 private:
  void Block(const std::byte* block);
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> buffer_{};
  uint64_t bytes_ = 0;
};

/// Lower-case hexadecimal.
std::string Hex(std::span<const std::byte> bytes);

}  // namespace billfish::cuda
