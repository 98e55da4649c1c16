#include "core/content_hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace billfish {
namespace {

std::vector<std::byte> Pattern(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 256 + i / 65536 * 3);
  return bytes;
}

TEST(ContentHash, EveryBitEveryLengthAndTheSeedChangeIt) {
  std::set<uint64_t> seen;
  size_t made = 0;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{31}, size_t{32}, size_t{33}, size_t{100}}) {
    std::vector<std::byte> bytes = Pattern(size);
    for (size_t bit = 0; bit < 8 * size; ++bit) {
      bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
      seen.insert(ContentHash(bytes));
      bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
      ++made;
    }
    seen.insert(ContentHash(bytes));
    seen.insert(ContentHash(bytes, 1));
    made += 2;
  }
  EXPECT_EQ(seen.size(), made);
}

TEST(ContentHash, TrailingZerosAreNotPadding) {
  const std::vector<std::byte> zeros(64);
  std::set<uint64_t> seen;
  for (size_t size = 0; size <= 64; ++size) seen.insert(ContentHash(std::span(zeros).first(size)));
  EXPECT_EQ(seen.size(), 65U);
}

TEST(ContentHashOfBlocks, IsTheSameForEveryNumberOfThreadsAndSeesSwappedBlocks) {
  std::vector<std::byte> bytes = Pattern((size_t{3} << 20) + 17);
  const uint64_t hash = ContentHashOfBlocks(bytes, 1);
  EXPECT_EQ(ContentHashOfBlocks(bytes, 2), hash);
  EXPECT_EQ(ContentHashOfBlocks(bytes, 7), hash);
  std::swap_ranges(bytes.begin(), bytes.begin() + (1 << 20), bytes.begin() + (2 << 20));
  EXPECT_NE(ContentHashOfBlocks(bytes, 2), hash);
}

}  // namespace
}  // namespace billfish
