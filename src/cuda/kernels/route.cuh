// Router logits to expert ids and weights, one warp per token: the device form of RouteTopK (include/billfish/moe.h).
//
//   BF_VALUES   logits a lane holds: E <= 32 * BF_VALUES, lane l owns experts l, l + 32, ...
//
// The choice compares what the CPU compares: exp and log1p are taken in fp64 and rounded once, which the CPU's libm equals except in its
// own last bit. Ids are valid whatever the logits are: not-a-number ranks below everything. Slots come in order of falling key, so that
// ties go to the smaller id.
#pragma once

#include "cuda/moe_args.h"

namespace billfish::cuda {

inline constexpr uint32_t kAll = 0xffffffffu;
inline constexpr uint32_t kTaken = 0;               // below every key
inline constexpr uint32_t kLostGroup = 0x007fffff;  // the key of minus infinity

// Larger key = larger value; -0 equals +0.
__device__ __forceinline__ uint32_t Key(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 1;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float Value(uint32_t key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

__device__ __forceinline__ uint32_t WarpMax(uint32_t v) {
  uint32_t r;
  asm volatile("redux.sync.max.u32 %0, %1, 0xffffffff;" : "=r"(r) : "r"(v));
  return r;
}

__device__ __forceinline__ uint32_t WarpMin(uint32_t v) {
  uint32_t r;
  asm volatile("redux.sync.min.u32 %0, %1, 0xffffffff;" : "=r"(r) : "r"(v));
  return r;
}

__device__ __forceinline__ float Exp(float x) { return static_cast<float>(exp(static_cast<double>(x))); }

struct RouteSoftmax {
  float top, sum;
};

__device__ __forceinline__ float Score(RouteScore kind, float logit, const RouteSoftmax& softmax) {
  if (kind == RouteScore::kSoftmax) return Exp(logit - softmax.top) / softmax.sum;
  if (kind == RouteScore::kSigmoid) return 1.0f / (1.0f + Exp(-logit));
  if (kind == RouteScore::kSqrtSoftplus) {
    return sqrtf(fmaxf(logit, 0.0f) + static_cast<float>(log1p(static_cast<double>(Exp(-fabsf(logit))))));
  }
  return logit;
}

// A group counts as much as its two best experts together; the experts of the groups that lose fall to minus infinity. Lane g compares
// group g with the others.
__device__ __forceinline__ void KeepBestGroups(uint32_t (&key)[BF_VALUES], const RouteArgs& args, int lane) {
  const int size = args.E / args.n_group;
  float mine = 0;
  for (int g = 0; g < args.n_group; ++g) {
    uint32_t first = kTaken, second = kTaken;
#pragma unroll
    for (int i = 0; i < BF_VALUES; ++i) {
      const int e = lane + 32 * i;
      const uint32_t k = e >= g * size && e < (g + 1) * size ? key[i] : kTaken;
      second = max(second, min(first, k));
      first = max(first, k);
    }
    const uint32_t best = WarpMax(first);
    const bool holds_best = lane == __ffs(static_cast<int>(__ballot_sync(kAll, first == best))) - 1;
    const uint32_t next = WarpMax(holds_best ? second : first);
    const float worth = size > 1 ? Value(best) + Value(next) : Value(best);
    if (lane == g) mine = worth;
  }
  int better = 0;
  for (int other = 0; other < args.n_group; ++other) {
    const float worth = __shfl_sync(kAll, mine, other);
    better += worth > mine || (worth == mine && other < lane) ? 1 : 0;
  }
  const uint32_t lost = __ballot_sync(kAll, better >= args.topk_group);
#pragma unroll
  for (int i = 0; i < BF_VALUES; ++i) {
    if (key[i] != kTaken && (lost >> ((lane + 32 * i) / size) & 1u) != 0) key[i] = kLostGroup;
  }
}

// The top_k largest keys, largest first, equal keys by id; the ids and the values behind the keys.
__device__ __forceinline__ void TakeBest(uint32_t (&key)[BF_VALUES], int top_k, int lane, int32_t* ids, float* values) {
  for (int j = 0; j < top_k; ++j) {
    uint32_t mine = key[0];
#pragma unroll
    for (int i = 1; i < BF_VALUES; ++i) mine = max(mine, key[i]);
    const uint32_t best = WarpMax(mine);
    uint32_t candidate = kAll;
#pragma unroll
    for (int i = BF_VALUES - 1; i >= 0; --i) {
      if (key[i] == best) candidate = static_cast<uint32_t>(lane + 32 * i);
    }
    // Most often one lane has the best, and knows its id by itself.
    const uint32_t id = __popc(__ballot_sync(kAll, mine == best)) == 1 ? candidate : WarpMin(candidate);
#pragma unroll
    for (int i = 0; i < BF_VALUES; ++i) {
      if (static_cast<uint32_t>(lane + 32 * i) == id) key[i] = kTaken;
    }
    if (candidate == id && id != kAll) ids[j] = static_cast<int32_t>(id), values[j] = Value(best);
  }
}

// Sums in order of j, as the CPU does.
__device__ __forceinline__ float OrderedSum(const float* values, int count, float sum) {
  for (int j = 0; j < count; ++j) sum += values[j];
  return sum;
}

__device__ __forceinline__ void Normalize(float* weights, const RouteArgs& args, int lane) {
  const int k = args.top_k;
  if (args.score == RouteScore::kTopKSoftmax) {
    float top = weights[0];
    for (int j = 1; j < k; ++j) top = fmaxf(top, weights[j]);
    __syncwarp();
    for (int j = lane; j < k; j += 32) weights[j] = Exp(weights[j] - top);
    __syncwarp();
    const float sum = OrderedSum(weights, k, 0.0f);
    __syncwarp();
    for (int j = lane; j < k; j += 32) weights[j] /= sum;
    __syncwarp();
  }
  if (args.renormalize != 0) {
    const float sum = OrderedSum(weights, k, 1e-20f);
    __syncwarp();
    for (int j = lane; j < k; j += 32) weights[j] /= sum;
    __syncwarp();
  }
}
// Ids and weights of token t by one warp; its logits lie in shared or global memory, `weights` and `ids` are shared memory for top_k each.
__device__ __forceinline__ void RouteRow(const RouteArgs& args, int t, const float* logits, float* weights, int32_t* ids, int lane) {
  float logit[BF_VALUES];
#pragma unroll
  for (int i = 0; i < BF_VALUES; ++i) logit[i] = lane + 32 * i < args.E ? logits[lane + 32 * i] : __uint_as_float(0xff800000u);

  const bool hashed = args.hash_table != nullptr;
  const bool by_logit = !hashed && args.correction == nullptr && args.n_group == 1;  // every score rises with its logit
  RouteSoftmax softmax{0, 0};
  if (args.score == RouteScore::kSoftmax) {
    uint32_t top = kTaken;
#pragma unroll
    for (int i = 0; i < BF_VALUES; ++i) top = max(top, Key(logit[i]));
    softmax.top = Value(WarpMax(top));
    if (by_logit && args.renormalize != 0) {
      softmax.sum = 1.0f;  // cancels
    } else {
#pragma unroll
      for (int i = 0; i < BF_VALUES; ++i) {
        if (lane + 32 * i < args.E) softmax.sum += Exp(logit[i] - softmax.top);
      }
#pragma unroll
      for (int step = 16; step > 0; step /= 2) softmax.sum += __shfl_xor_sync(kAll, softmax.sum, step);
    }
  }

  if (hashed) {
    const int64_t row = args.token_ids[t];
    const bool known = row >= 0 && row < args.vocab;
    for (int j = lane; j < args.top_k; j += 32) ids[j] = known ? args.hash_table[row * args.top_k + j] : -1;
  } else {
    uint32_t key[BF_VALUES];
#pragma unroll
    for (int i = 0; i < BF_VALUES; ++i) {
      const int e = lane + 32 * i;
      key[i] = kTaken;
      if (e < args.E) {
        const float correction = args.correction == nullptr ? 0.0f : args.correction[e];
        key[i] = Key(by_logit ? logit[i] : Score(args.score, logit[i], softmax) + correction);
      }
    }
    if (args.n_group > 1) KeepBestGroups(key, args, lane);
    TakeBest(key, args.top_k, lane, ids, weights);
  }
  __syncwarp();
  for (int j = lane; j < args.top_k; j += 32) {
    weights[j] = ids[j] < 0 ? 0.0f : Score(args.score, by_logit ? weights[j] : logits[ids[j]], softmax);
  }
  __syncwarp();
  Normalize(weights, args, lane);
  for (int j = lane; j < args.top_k; j += 32) {
    args.ids[static_cast<int64_t>(t) * args.top_k + j] = ids[j];
    args.weights[static_cast<int64_t>(t) * args.top_k + j] = weights[j] * args.routed_scaling;
  }
}

}  // namespace billfish::cuda
