// Replaces operator new by one that counts. Include it in exactly one file of a test program.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace billfish::test {

inline std::atomic<int64_t> allocations{0};

inline void* Counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  return alignment > 16 ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment) : std::malloc(bytes + 1);
}

}  // namespace billfish::test

void* operator new(std::size_t bytes) { return billfish::test::Counted(bytes, 16); }
void* operator new[](std::size_t bytes) { return billfish::test::Counted(bytes, 16); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return billfish::test::Counted(bytes, 16); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return billfish::test::Counted(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return billfish::test::Counted(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
