// Loops that run at the peak of one instruction; compiled once per instruction set, called by limits.cc.
#pragma once

#include <cstddef>
#include <cstdint>

namespace billfish::cpu {

/// Each runs `count` rounds of 24 independent multiply-adds and returns operations per round (2 per multiply-add).
using PeakLoop = int (*)(int64_t count);
/// Reads [p, p + bytes), bytes a multiple of 256; the return value only keeps the loads alive.
using ReadLoop = uint64_t (*)(const std::byte* p, size_t bytes);

namespace scalar {
int FmaLoop(int64_t count);
uint64_t ReadAll(const std::byte* p, size_t bytes);
}  // namespace scalar
namespace avx2 {
int FmaLoop(int64_t count);
uint64_t ReadAll(const std::byte* p, size_t bytes);
}  // namespace avx2
namespace avx512 {
int FmaLoop(int64_t count);
uint64_t ReadAll(const std::byte* p, size_t bytes);
}  // namespace avx512
namespace avx512bf16 {
int Bf16Loop(int64_t count);
int Int8Loop(int64_t count);
}  // namespace avx512bf16

}  // namespace billfish::cpu
