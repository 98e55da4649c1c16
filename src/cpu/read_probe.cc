#include "cpu/read_probe.h"

#include <atomic>
#include <chrono>
#include <cstring>

#include "core/parallel.h"
#include "core/status_macros.h"
#include "cpu/isa.h"
#include "cpu/peak_loops.h"

namespace billfish::cpu {
namespace {

ReadLoop BestReadLoop() {
#if defined(__x86_64__)
  const Tier tier = DetectCpu().tier;
  return tier >= Tier::kAvx512 ? &avx512::ReadAll : tier >= Tier::kAvx2 ? &avx2::ReadAll : &scalar::ReadAll;
#else
  return &scalar::ReadAll;
#endif
}

}  // namespace

Result<ReadProbe> ReadProbe::Create(int threads, size_t bytes) {
  BILLFISH_ASSIGN_OR_RETURN(HugeBuffer buffer, HugeBuffer::Allocate(kPasses * bytes));
  std::memset(buffer.data(), 1, kPasses * bytes);
  return ReadProbe(std::move(buffer), threads, bytes);
}

double ReadProbe::Measure() {
  const std::byte* const begin = buffer_.data() + size_t(pass_) * bytes_;
  pass_ = (pass_ + 1) % kPasses;
  const size_t part = bytes_ / size_t(threads_) / 256 * 256;
  std::atomic<uint64_t> sink{0};
  const auto start = std::chrono::steady_clock::now();
  RunOnThreads(threads_, [&](int thread) { sink += BestReadLoop()(begin + size_t(thread) * part, part); });
  return double(part) * threads_ / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace billfish::cpu
