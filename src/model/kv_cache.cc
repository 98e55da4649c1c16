#include "model/kv_cache.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

#include "model/lanes.h"

namespace billfish {

using model::AttentionTile;
using model::kLanes;

KvCache::KvCache() = default;
KvCache::~KvCache() = default;
KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;

int64_t KvCache::length() const { return impl_->length; }
int64_t KvCache::capacity() const { return impl_->max_tokens; }
size_t KvCache::bytes() const { return impl_->bytes; }

Status KvCache::Truncate(int64_t length) {
  if (length < 0 || length > impl_->length) {
    return {ErrorCode::kInvalidArgument, fmt::format("the cache was asked to keep {} tokens; it holds {}", length, impl_->length)};
  }
  impl_->length = length;
  return OkStatus();
}

Status KvCache::Impl::Allocate() {
  capacity = (max_tokens + AttentionTile::kChunk - 1) / AttentionTile::kChunk * AttentionTile::kChunk;
  v_stride = (v_dim + kLanes - 1) / kLanes * kLanes;
  // Above any machine's memory and far below where the products below would overflow.
  constexpr double kMostBytes = 0x1p40;
  const double wanted = 4.0 * static_cast<double>(layers) * static_cast<double>(kv_heads) * static_cast<double>(capacity) *
                        static_cast<double>(head_dim + v_stride);
  if (wanted >= kMostBytes) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("a cache for {} tokens takes {:.3g} bytes, which no system has; ask for fewer tokens", max_tokens, wanted)};
  }
  bytes = static_cast<size_t>(layers * kv_heads * HeadFloats()) * sizeof(float);
  void* pages = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("a cache for {} tokens takes {} bytes, which the system refused; ask for fewer tokens", max_tokens, bytes)};
  }
  memory = std::shared_ptr<float>(static_cast<float*>(pages), [count = bytes](float* p) { ::munmap(p, count); });
  return OkStatus();
}

void KvCache::Impl::Put(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) const {
  float* keys = Keys(layer, head) + position / kLanes * kLanes * head_dim + position % kLanes;
  for (int64_t d = 0; d < head_dim; ++d) keys[d * kLanes] = key[d];
  std::copy_n(value, v_dim, Values(layer, head) + position * v_stride);
}

}  // namespace billfish
