#include "model/kv_cache.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

#include "core/rounding.h"
#include "core/status_macros.h"
#include "model/lanes.h"

namespace billfish {

using model::AttentionTile;
using model::kLanes;

KvCache::KvCache() = default;
KvCache::~KvCache() = default;
KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;

int64_t KvCache::sequences() const { return impl_->sequences(); }
int64_t KvCache::length(int64_t sequence) const {
  return sequence < 0 || sequence >= sequences() ? 0 : impl_->lengths[static_cast<size_t>(sequence)];
}
int64_t KvCache::capacity() const { return impl_->max_tokens; }
size_t KvCache::bytes() const { return impl_->bytes; }

Status KvCache::Truncate(int64_t length, int64_t sequence) {
  BILLFISH_RETURN_IF_ERROR(impl_->CheckSequence(sequence));
  int64_t& held = impl_->length(sequence);
  if (length < 0 || length > held) {
    return {ErrorCode::kInvalidArgument, fmt::format("the cache was asked to keep {} tokens; it holds {}", length, held)};
  }
  held = length;
  return OkStatus();
}

Status KvCache::Impl::CheckSequence(int64_t sequence) const {
  if (sequence >= 0 && sequence < sequences()) return OkStatus();
  return {ErrorCode::kInvalidArgument,
          fmt::format("sequence {} of the cache was named; it holds sequences 0 to {}", sequence, sequences() - 1)};
}

Status KvCache::Impl::Allocate() {
  capacity = RoundUp(max_tokens, AttentionTile::kChunk);
  v_stride = RoundUp(v_dim, kLanes);
  // Above any machine's memory and far below where the products below would overflow.
  constexpr double kMostBytes = 0x1p40;
  const int64_t tokens = sequences() * max_tokens;
  const double wanted = 4.0 * static_cast<double>(sequences()) * static_cast<double>(layers) * static_cast<double>(kv_heads) *
                        static_cast<double>(capacity) * static_cast<double>(head_dim + v_stride);
  if (wanted >= kMostBytes) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("a cache for {} tokens takes {:.3g} bytes, which no system has; ask for fewer tokens", tokens, wanted)};
  }
  bytes = static_cast<size_t>(sequences() * layers * kv_heads * HeadFloats()) * sizeof(float);
  void* pages = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("a cache for {} tokens takes {} bytes, which the system refused; ask for fewer tokens", tokens, bytes)};
  }
  memory = std::shared_ptr<float>(static_cast<float*>(pages), [count = bytes](float* p) { ::munmap(p, count); });
  return OkStatus();
}

void KvCache::Impl::Put(int64_t sequence, int64_t layer, int64_t head, int64_t position, const float* key, const float* value) const {
  float* keys = Keys(sequence, layer, head) + position / kLanes * kLanes * head_dim + position % kLanes;
  for (int64_t d = 0; d < head_dim; ++d) keys[d * kLanes] = key[d];
  std::copy_n(value, v_dim, Values(sequence, layer, head) + position * v_stride);
}

}  // namespace billfish
