#include "model/vector_ops.h"

#include <cmath>
#include <vector>

#include "model/attention_tile.h"
#include "model/lanes.h"

namespace billfish::model {
namespace {

BILLFISH_INLINE void RmsNormBody(const float* x, const float* weight, int64_t n, float eps, float* y_f32, uint16_t* y_bf16) {
  Lanes squares = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes v;
    Load(x + i, v);
    squares += v * v;
  }
  float sum = Sum(squares);
  for (; i < n; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  for (i = 0; i + kLanes <= n; i += kLanes) {
    Lanes v, w;
    Load(x + i, v);
    Load(weight + i, w);
    v = v * scale * w;
    if (y_f32 != nullptr) {
      Store(v, y_f32 + i);
    } else {
      StoreBf16(v, y_bf16 + i);
    }
  }
  for (; i < n; ++i) {
    const float v = x[i] * scale * weight[i];
    if (y_f32 != nullptr) {
      y_f32[i] = v;
    } else {
      y_bf16[i] = ToBf16(v);
    }
  }
}

BILLFISH_INLINE void AddBody(float* x, const float* delta, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes a, b;
    Load(x + i, a);
    Load(delta + i, b);
    a += b;
    Store(a, x + i);
  }
  for (; i < n; ++i) x[i] += delta[i];
}

/// silu(g) * u = g * u / (1 + e^-g). For g < -87 the true value is below 1e-36 and e^-g would overflow.
BILLFISH_INLINE void SwigluLanes(Lanes& g, const Lanes& u) {
  Lanes e = -g;
  Lanes limit;
  Splat(87.0f, limit);
  e = e < limit ? e : limit;
  Exp(e);
  g = g * u / (1.0f + e);
}

BILLFISH_INLINE void SwigluBody(const float* gate, const float* up, int64_t n, float* h_f32, uint16_t* h_bf16) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes g, u;
    Load(gate + i, g);
    Load(up + i, u);
    SwigluLanes(g, u);
    if (h_f32 != nullptr) {
      Store(g, h_f32 + i);
    } else {
      StoreBf16(g, h_bf16 + i);
    }
  }
  for (; i < n; ++i) {
    Lanes g, u;
    Splat(gate[i], g);
    Splat(up[i], u);
    SwigluLanes(g, u);
    if (h_f32 != nullptr) {
      h_f32[i] = g[0];
    } else {
      h_bf16[i] = ToBf16(g[0]);
    }
  }
}

/// Lane sums stay below 2^24 / 16 terms of at most 1 each, so fp32 lanes lose less than 1e-5 of the sum for any vocabulary.
BILLFISH_INLINE double LogSumExpBody(const float* x, int64_t n) {
  float top = x[0];
  Lanes tops;
  Splat(top, tops);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes v;
    Load(x + i, v);
    tops = tops > v ? tops : v;
  }
  top = Max(tops);
  for (; i < n; ++i) top = top > x[i] ? top : x[i];
  double sum = 0;
  Lanes sums = {};
  for (i = 0; i + kLanes <= n; i += kLanes) {
    Lanes v;
    Load(x + i, v);
    v -= top;
    Exp(v);
    sums += v;
  }
  for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(sums[lane]);
  for (; i < n; ++i) sum += std::exp(static_cast<double>(x[i] - top));
  return static_cast<double>(top) + std::log(sum);
}

// One set of functions per instruction set. The bodies above are inlined and compiled for it.
#define BILLFISH_VECTOR_OPS(name, target)                                                                                   \
  struct name {                                                                                                             \
    target static void RmsNorm(const float* x, const float* weight, int64_t n, float eps, float* y_f32, uint16_t* y_bf16) { \
      RmsNormBody(x, weight, n, eps, y_f32, y_bf16);                                                                        \
    }                                                                                                                       \
    target static void Add(float* x, const float* delta, int64_t n) { AddBody(x, delta, n); }                               \
    target static void Swiglu(const float* gate, const float* up, int64_t n, float* h_f32, uint16_t* h_bf16) {              \
      SwigluBody(gate, up, n, h_f32, h_bf16);                                                                               \
    }                                                                                                                       \
    target static double LogSumExp(const float* x, int64_t n) { return LogSumExpBody(x, n); }                               \
    target static void Attention(const AttentionTile& tile) { AttentionBody(tile); }                                        \
    static constexpr VectorOps kTable{RmsNorm, Add, Swiglu, LogSumExp, Attention};                                          \
  };

BILLFISH_VECTOR_OPS(Baseline, )
#if defined(__x86_64__)
BILLFISH_VECTOR_OPS(Avx2, __attribute__((target("avx2,fma"))))
BILLFISH_VECTOR_OPS(Avx512, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))))
#endif
#undef BILLFISH_VECTOR_OPS

std::vector<const VectorOps*> Choose() {
  std::vector<const VectorOps*> tables;
#if defined(__x86_64__)
  // These also ask the system whether it saves the wide registers.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    tables.push_back(&Avx512::kTable);
  }
  if (avx2) tables.push_back(&Avx2::kTable);
#endif
  tables.push_back(&Baseline::kTable);
  return tables;
}

}  // namespace

std::span<const VectorOps* const> AllOps() {
  static const std::vector<const VectorOps*> tables = Choose();
  return tables;
}

const VectorOps& Ops() {
  static const VectorOps& best = *AllOps().front();
  return best;
}

}  // namespace billfish::model
