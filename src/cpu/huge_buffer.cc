#include "cpu/huge_buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <string>

#include "core/rounding.h"

namespace billfish::cpu {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
}

Result<HugeBuffer> HugeBuffer::Allocate(size_t bytes) {
  HugeBuffer buffer;
  if (bytes == 0) return buffer;
  const size_t rounded = RoundUp(bytes, kHugePage);
  const size_t mapped = rounded + kHugePage;  // room to align the start
  void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    return Status(ErrorCode::kOutOfMemory, "a buffer of " + std::to_string(mapped) + " bytes for packed weights could not be mapped");
  }
  const uintptr_t start = RoundUp(reinterpret_cast<uintptr_t>(mapping), kHugePage);
  buffer.mapping_ = mapping;
  buffer.mapped_bytes_ = mapped;
  buffer.data_ = reinterpret_cast<std::byte*>(start);
  buffer.size_ = bytes;
#ifdef MADV_HUGEPAGE
  // Small matrices share no huge page: rounding a 10 KiB weight to 2 MiB would waste memory. Refusal only costs speed.
  if (bytes >= kHugePage / 2) (void)madvise(buffer.data_, rounded, MADV_HUGEPAGE);
#endif
  return buffer;
}

HugeBuffer& HugeBuffer::operator=(HugeBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  return *this;
}

HugeBuffer::~HugeBuffer() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_bytes_);
}

}  // namespace billfish::cpu
