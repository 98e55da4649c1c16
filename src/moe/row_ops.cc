// One body in 16 fp32 lanes, inlined into a function of each instruction set.
//
// exp(x) = 2^n e^r with n = round(x / ln 2) and |r| <= ln(2)/2; e^r is its Taylor polynomial of degree 7 (remainder below 2^-27), and
// x - n ln 2 is formed in two steps because the first part of ln 2 has few bits and its product with n is exact.
// tanh GELU uses (1 + tanh z) / 2 = sigmoid(2 z).
#include "moe/row_ops.h"

#include <cstring>

#define BILLFISH_INLINE [[gnu::always_inline]] inline

namespace billfish::moe {
namespace {

constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef uint16_t HalfLanes __attribute__((vector_size(32)));

BILLFISH_INLINE void Load(const float* p, int64_t count, Lanes& v) {
  if (count >= kLanes) {
    std::memcpy(&v, p, sizeof v);
  } else {
    v = Lanes{};
    std::memcpy(&v, p, static_cast<size_t>(count) * sizeof(float));
  }
}

BILLFISH_INLINE void Store(const Lanes& v, int64_t count, int64_t i, void* out, bool bf16) {
  const auto n = static_cast<size_t>(count < kLanes ? count : kLanes);
  if (!bf16) {
    if (n == kLanes) {
      std::memcpy(static_cast<float*>(out) + i, &v, sizeof v);
    } else {
      std::memcpy(static_cast<float*>(out) + i, &v, n * sizeof(float));
    }
    return;
  }
  IntLanes bits;
  std::memcpy(&bits, &v, sizeof bits);
  const IntLanes is_nan = v != v;  // NOLINT(misc-redundant-expression): a NaN alone differs from itself
  const IntLanes rounded = (bits + (0x7fff + ((bits >> 16) & 1))) >> 16;
  const IntLanes upper = (((bits >> 16) | 0x40) & is_nan) | (rounded & ~is_nan);
  const HalfLanes half = __builtin_convertvector(upper & 0xffff, HalfLanes);
  if (n == kLanes) {
    std::memcpy(static_cast<uint16_t*>(out) + i, &half, sizeof half);
  } else {
    std::memcpy(static_cast<uint16_t*>(out) + i, &half, n * sizeof(uint16_t));
  }
}

BILLFISH_INLINE void Min(Lanes& v, float limit) {
  const Lanes bound = Lanes{} + limit;
  v = v > bound ? bound : v;
}

BILLFISH_INLINE void Max(Lanes& v, float limit) {
  const Lanes bound = Lanes{} + limit;
  v = v < bound ? bound : v;
}

// Replaces v by exp(v); v is clamped to where the result is a normal number. A NaN stays one.
BILLFISH_INLINE void Exp(Lanes& v) {
  Min(v, 88.0f);
  Max(v, -87.0f);
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
  const Lanes shifted = v * 1.44269504f + kRound;
  const Lanes n = shifted - kRound;
  const Lanes r = (v - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  IntLanes exponent, bits;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  std::memcpy(&bits, &p, sizeof bits);
  bits += exponent << 23;
  std::memcpy(&v, &bits, sizeof v);
}

// v = x * sigmoid(z)
BILLFISH_INLINE void TimesSigmoid(const Lanes& x, const Lanes& z, Lanes& v) {
  Lanes e = -z;
  Exp(e);
  v = x / (1.0f + e);
}

template <Activation::Kind kKind>
BILLFISH_INLINE void Apply(const Activation& activation, Lanes& g, Lanes& u) {
  using Kind = Activation::Kind;
  if constexpr (kKind == Kind::kSwigluClamped || kKind == Kind::kSwigluOai) {
    Min(g, activation.limit);
    Min(u, activation.limit);
    Max(u, -activation.limit);
  }
  if constexpr (kKind == Kind::kRelu2) {
    Max(g, 0.0f);
    g *= g;
  } else if constexpr (kKind == Kind::kSwigluOai) {
    const Lanes z = g * activation.alpha;
    TimesSigmoid(g, z, g);
    g *= u + activation.beta;
  } else if constexpr (kKind == Kind::kGegluTanh) {
    const Lanes z = g * 1.59576912f * (1.0f + 0.044715f * g * g);
    TimesSigmoid(g, z, g);
    g *= u;
  } else {
    TimesSigmoid(g, g, g);
    if constexpr (kKind != Kind::kSilu) g *= u;
  }
}

template <Activation::Kind kKind>
BILLFISH_INLINE void ActivateBody(const Activation& activation, const ActivateJob& job) {
  constexpr bool kGated = kKind != Activation::Kind::kSilu && kKind != Activation::Kind::kRelu2;
  for (int64_t i = 0; i < job.n; i += kLanes) {
    Lanes g, u{};
    Load(job.gate + i, job.n - i, g);
    if constexpr (kGated) Load(job.up + i, job.n - i, u);
    Apply<kKind>(activation, g, u);
    Store(g, job.n - i, i, job.h, job.bf16);
  }
}

BILLFISH_INLINE void ActivateAny(const Activation& activation, const ActivateJob& job) {
  switch (activation.kind) {
    case Activation::Kind::kSwiglu:
      return ActivateBody<Activation::Kind::kSwiglu>(activation, job);
    case Activation::Kind::kSwigluClamped:
      return ActivateBody<Activation::Kind::kSwigluClamped>(activation, job);
    case Activation::Kind::kSwigluOai:
      return ActivateBody<Activation::Kind::kSwigluOai>(activation, job);
    case Activation::Kind::kGegluTanh:
      return ActivateBody<Activation::Kind::kGegluTanh>(activation, job);
    case Activation::Kind::kSilu:
      return ActivateBody<Activation::Kind::kSilu>(activation, job);
    case Activation::Kind::kRelu2:
      return ActivateBody<Activation::Kind::kRelu2>(activation, job);
  }
}

BILLFISH_INLINE void CombineBody(const CombineJob& job) {
  for (int64_t c = 0; c < job.n; c += kLanes) {
    Lanes sum{};
    for (int64_t j = 0; j < job.top_k; ++j) {
      if (job.positions[j] < 0) continue;
      Lanes row;
      Load(job.rows + job.positions[j] * job.n + c, job.n - c, row);
      sum += row * job.weights[j];
    }
    Store(sum, job.n - c, c, job.y, job.bf16);
  }
}

void ActivateBaseline(const Activation& activation, const ActivateJob& job) { ActivateAny(activation, job); }
void CombineBaseline(const CombineJob& job) { CombineBody(job); }
constexpr RowOps kBaseline{&ActivateBaseline, &CombineBaseline};

#if defined(__x86_64__)
#define BILLFISH_AVX2 [[gnu::target("avx2,fma")]]
#define BILLFISH_AVX512 [[gnu::target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")]]

BILLFISH_AVX2 void ActivateAvx2(const Activation& activation, const ActivateJob& job) { ActivateAny(activation, job); }
BILLFISH_AVX2 void CombineAvx2(const CombineJob& job) { CombineBody(job); }
constexpr RowOps kAvx2{&ActivateAvx2, &CombineAvx2};

BILLFISH_AVX512 void ActivateAvx512(const Activation& activation, const ActivateJob& job) { ActivateAny(activation, job); }
BILLFISH_AVX512 void CombineAvx512(const CombineJob& job) { CombineBody(job); }
constexpr RowOps kAvx512{&ActivateAvx512, &CombineAvx512};
#endif

}  // namespace

const RowOps& RowOpsFor([[maybe_unused]] cpu::Tier tier) {
#if defined(__x86_64__)
  if (tier >= cpu::Tier::kAvx512) return kAvx512;
  if (tier >= cpu::Tier::kAvx2) return kAvx2;
#endif
  return kBaseline;
}

}  // namespace billfish::moe
