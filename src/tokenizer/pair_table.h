// PairTable: (left id, right id) -> (rank, joined id), an open-addressing hash table for BPE merges.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace billfish::tokenizer {

struct Merge {
  uint32_t rank;
  int32_t joined;
};

class PairTable {
 public:
  /// Room for `count` pairs.
  void Reserve(size_t count) { slots_.assign(std::bit_ceil(2 * count + 2), Slot{}); }

  /// A pair that is there already is overwritten. Precondition: no more pairs than reserved, ids >= 0.
  void Set(int32_t left, int32_t right, Merge merge) {
    Slot& slot = slots_[Locate(Key(left, right))];
    slot = {Key(left, right), merge};
  }

  /// nullptr if absent.
  const Merge* Find(int32_t left, int32_t right) const {
    if (slots_.empty()) return nullptr;
    const Slot& slot = slots_[Locate(Key(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.merge;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };

  static uint64_t Key(int32_t left, int32_t right) { return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right); }

  /// The slot that holds the key or would.
  size_t Locate(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    // Fibonacci hashing: ids are dense, so the product's high bits spread them.
    size_t i = static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 32) & mask;
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask;
    return i;
  }

  std::vector<Slot> slots_;
};

}  // namespace billfish::tokenizer
