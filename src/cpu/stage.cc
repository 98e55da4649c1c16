#include "cpu/stage.h"

#include <algorithm>
#include <cstring>

#include "core/float_formats.h"

namespace billfish::cpu {
namespace {

void Convert(const float* from, float* to, int64_t count) { std::memcpy(to, from, size_t(count) * 4); }
void Convert(const uint16_t* from, uint16_t* to, int64_t count) { std::memcpy(to, from, size_t(count) * 2); }
void Convert(const uint16_t* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = F32FromBF16(from[i]);
}
void Convert(const float* from, uint16_t* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = BF16FromF32(from[i]);
}

/// Calls write(row, slab, values) with the converted values of every slab, padding included.
template <class From, class To, class Write>
void StageRows(const StageJob& job, Write&& write) {
  const PanelLayout& layout = *job.layout;
  for (int64_t row = job.begin; row < job.end; ++row) {
    const From* x = static_cast<const From*>(job.x) + (job.source == nullptr ? row : job.source[row]) * job.x_stride;
    int64_t position = 0;
    for (int slab = 0; slab < layout.slabs(); ++slab) {
      const int64_t count = int64_t{layout.chunks_in_slab(slab)} * layout.chunk_k;
      To* to = write(row, slab);
      if (job.columns == nullptr) {
        const int64_t live = std::clamp<int64_t>(layout.K - position, 0, count);
        Convert(x + position, to, live);
        std::fill(to + live, to + count, To{});
      } else {
        const int32_t* columns = job.columns + position;
        for (int64_t i = 0; i < count; ++i) {
          to[i] = To{};
          if (columns[i] >= 0) Convert(x + columns[i], to + i, 1);
        }
      }
      position += count;
    }
  }
}

template <class To>
void Stage(const StageJob& job, size_t row_bytes) {
  const auto place = [&](int64_t row, int slab) {
    return reinterpret_cast<To*>(job.staged + size_t(slab) * job.slab_stride + size_t(row) * row_bytes);
  };
  if (job.x_bf16) {
    StageRows<uint16_t, To>(job, place);
  } else {
    StageRows<float, To>(job, place);
  }
}

}  // namespace

void StageF32(const StageJob& job) { Stage<float>(job, kStagedF32Bytes); }
void StageBF16(const StageJob& job) { Stage<uint16_t>(job, kStagedBF16Bytes); }

}  // namespace billfish::cpu
