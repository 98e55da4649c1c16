// HugeBuffer: memory for packed weights, on 2 MiB pages where the system grants them (15 to 30 % more read bandwidth than 4 KiB pages).
#pragma once

#include <cstddef>
#include <utility>

#include "billfish/status.h"

namespace billfish::cpu {

/// Owns a zeroed block aligned to 2 MiB. Move-only.
class HugeBuffer {
 public:
  HugeBuffer() = default;
  /// kOutOfMemory if the system refuses.
  static Result<HugeBuffer> Allocate(size_t bytes);
  HugeBuffer(HugeBuffer&& other) noexcept { *this = std::move(other); }
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;
  ~HugeBuffer();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapped_bytes_ = 0;
};

}  // namespace billfish::cpu
