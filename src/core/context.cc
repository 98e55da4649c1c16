#include "billfish/context.h"

#include <fmt/format.h>
#include <sched.h>

#include <cstdlib>
#include <new>
#include <thread>

namespace billfish {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void Workspace::Free::operator()(std::byte* p) const {
  if (owned) ::operator delete(p, kAlignment);
}

Status Workspace::Reserve(size_t bytes) {
  if (bytes <= bytes_) return OkStatus();
  auto* p = static_cast<std::byte*>(::operator new(bytes, kAlignment, std::nothrow));
  if (p == nullptr) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("a workspace of {} bytes was asked for and the system has no memory for it; use fewer tokens a call", bytes)};
  }
  memory_ = std::unique_ptr<std::byte, Free>(p);
  bytes_ = bytes;
  return OkStatus();
}

int DefaultThreads() {
  if (const char* text = std::getenv("BILLFISH_THREADS")) {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (end != text && *end == '\0' && value >= 1 && value <= 4096) return static_cast<int>(value);
  }
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  const unsigned hardware = std::thread::hardware_concurrency();
  return hardware > 0 ? static_cast<int>(hardware) : 1;
}

}  // namespace billfish
