// Body of VectorOps::attention.
//
// Keys lie in blocks of 16 positions, transposed: one vector holds value d of 16 keys, so that a score needs no sum over lanes.
//
//   for each chunk of 64 keys, for each group of 4 rows
//     scores[4][64] += q[r][d] * keys[block][d][0..15]        q broadcast
//     mask, running maximum m, p = exp(score - m), l = l * exp(m_old - m) + sum p
//     accumulator[4][v] = accumulator * exp(m_old - m) + p[r][j] * values[j][0..v]     p broadcast
//
// The chunk's keys and values stay in the first-level cache for all groups of rows. Chunks begin at multiples of 64 whatever the rows
// are, so a row adds in the same order in every tile.
#pragma once

#include <algorithm>
#include <limits>

#include "model/lanes.h"
#include "model/vector_ops.h"

namespace billfish::model {

/// Below every score, yet finite: exp(kNoScore - x) is 0 and kNoScore - kNoScore is not NaN.
inline constexpr float kNoScore = -1e30f;
inline constexpr int kRowGroup = 4;

/// scores[R][32] for the two blocks at `keys`.
template <int R>
BILLFISH_INLINE void ScoreTwoBlocks(const float* const* q, const float* keys, int64_t qk_dim, float* scores) {
  Lanes low[R] = {};
  Lanes high[R] = {};
  const float* second = keys + qk_dim * kLanes;
  for (int64_t d = 0; d < qk_dim; ++d) {
    Lanes a, b;
    Load(keys + d * kLanes, a);
    Load(second + d * kLanes, b);
    for (int r = 0; r < R; ++r) {
      low[r] += a * q[r][d];
      high[r] += b * q[r][d];
    }
  }
  for (int r = 0; r < R; ++r) {
    Store(low[r], scores + r * AttentionTile::kChunk);
    Store(high[r], scores + r * AttentionTile::kChunk + kLanes);
  }
}

/// accumulator[R][V lanes] += p[R][count] . values[count][V lanes]
template <int R, int V>
BILLFISH_INLINE void AddValues(const float* p, const float* values, int64_t stride, int64_t count, float* accumulator) {
  Lanes sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) Load(accumulator + r * stride + v * kLanes, sum[r][v]);
  }
  for (int64_t j = 0; j < count; ++j) {
    for (int v = 0; v < V; ++v) {
      Lanes value;
      Load(values + j * stride + v * kLanes, value);
      for (int r = 0; r < R; ++r) sum[r][v] += value * p[r * AttentionTile::kChunk + j];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) Store(sum[r][v], accumulator + r * stride + v * kLanes);
  }
}

/// Scores -> probabilities for one row; returns the factor for what was summed before.
BILLFISH_INLINE float SoftmaxStep(float* scores, int64_t visible_from, int64_t visible_to, float& m, float& l) {
  constexpr int kVectors = AttentionTile::kChunk / kLanes;
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < visible_from; ++j) scores[j] = kMasked;
  for (int64_t j = visible_to; j < AttentionTile::kChunk; ++j) scores[j] = kMasked;
  Lanes s[kVectors];
  for (int i = 0; i < kVectors; ++i) Load(scores + i * kLanes, s[i]);
  Lanes largest = s[0];
  for (int i = 1; i < kVectors; ++i) largest = largest > s[i] ? largest : s[i];
  const float top = Max(largest);
  const float new_m = top > m ? top : m;
  Lanes sum = {};
  for (int i = 0; i < kVectors; ++i) {
    s[i] -= new_m;
    Exp(s[i]);
    sum += s[i];
    Store(s[i], scores + i * kLanes);
  }
  Lanes factor;
  Splat(m - new_m, factor);
  Exp(factor);
  const float scale = factor[0];
  m = new_m;
  l = l * scale + Sum(sum);
  return scale;
}

template <int R>
BILLFISH_INLINE void AttendChunk(const AttentionTile& t, int row, int64_t chunk, float* m, float* l) {
  int64_t last = t.last[row];
  int64_t first = t.first[row];
  for (int r = 1; r < R; ++r) {
    last = std::max(last, t.last[row + r]);
    first = std::min(first, t.first[row + r]);
  }
  if (last < chunk || first >= chunk + AttentionTile::kChunk) return;
  const int64_t count = std::min<int64_t>(AttentionTile::kChunk, last + 1 - chunk);
  float scores[R * AttentionTile::kChunk];
  for (int64_t j = 0; j < count; j += 2 * kLanes) {
    ScoreTwoBlocks<R>(t.q + row, t.keys + (chunk + j) * t.qk_dim, t.qk_dim, scores + j);
  }
  float* accumulator = t.accumulator + row * t.v_stride;
  for (int r = 0; r < R; ++r) {
    const int64_t from = std::clamp<int64_t>(t.first[row + r] - chunk, 0, AttentionTile::kChunk);
    const int64_t to = std::clamp<int64_t>(t.last[row + r] + 1 - chunk, from, AttentionTile::kChunk);
    const float scale = SoftmaxStep(scores + r * AttentionTile::kChunk, from, to, m[r], l[r]);
    for (int64_t v = 0; v < t.v_stride; v += kLanes) {
      Lanes x;
      Load(accumulator + r * t.v_stride + v, x);
      x *= scale;
      Store(x, accumulator + r * t.v_stride + v);
    }
  }
  const float* values = t.values + chunk * t.v_stride;
  int64_t v = 0;
  for (; v + 4 * kLanes <= t.v_stride; v += 4 * kLanes) AddValues<R, 4>(scores, values + v, t.v_stride, count, accumulator + v);
  for (; v < t.v_stride; v += kLanes) AddValues<R, 1>(scores, values + v, t.v_stride, count, accumulator + v);
}

BILLFISH_INLINE void AttentionBody(const AttentionTile& t) {
  float m[AttentionTile::kRows];
  float l[AttentionTile::kRows];
  int64_t first = t.first[0];
  int64_t last = t.last[0];
  for (int r = 0; r < t.rows; ++r) {
    m[r] = t.has_sink ? t.sink[r] : kNoScore;
    l[r] = t.has_sink ? 1.0f : 0.0f;
    first = std::min(first, t.first[r]);
    last = std::max(last, t.last[r]);
  }
  std::fill(t.accumulator, t.accumulator + t.rows * t.v_stride, 0.0f);
  for (int64_t chunk = first / AttentionTile::kChunk * AttentionTile::kChunk; chunk <= last; chunk += AttentionTile::kChunk) {
    int row = 0;
    for (; row + kRowGroup <= t.rows; row += kRowGroup) AttendChunk<kRowGroup>(t, row, chunk, m + row, l + row);
    for (; row + 2 <= t.rows; row += 2) AttendChunk<2>(t, row, chunk, m + row, l + row);
    for (; row < t.rows; ++row) AttendChunk<1>(t, row, chunk, m + row, l + row);
  }
  for (int r = 0; r < t.rows; ++r) {
    const float inverse = 1.0f / l[r];
    const float* x = t.accumulator + r * t.v_stride;
    if (t.bf16) {
      for (int64_t v = 0; v < t.v_dim; ++v) t.out_bf16[r][v] = ToBf16(x[v] * inverse);
    } else {
      for (int64_t v = 0; v < t.v_dim; ++v) t.out_f32[r][v] = x[v] * inverse;
    }
  }
}

}  // namespace billfish::model
