// Router logits to expert ids and weights, one warp per token: the device form of RouteTopK (include/billfish/moe.h).
//
//   BF_VALUES   logits a lane holds: E <= 32 * BF_VALUES, lane l owns experts l, l + 32, ...
//
// The choice compares what the CPU compares: where it depends on exp and log1p, these are taken in fp64 and rounded once, which the CPU's
// libm equals except in its own last bit. Weights that no choice depends on are left to fp32, which is much faster. Ids are valid whatever
// the logits are: not-a-number ranks below everything. Slots come in order of falling key, so that ties go to the smaller id.
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

// Calls: in line they would make every kernel that routes several times as long.
__device__ __noinline__ float ExactExp(float x) { return static_cast<float>(exp(static_cast<double>(x))); }
__device__ __noinline__ float ExactLog1p(float x) { return static_cast<float>(log1p(static_cast<double>(x))); }

// `chooses`: ids depend on the result.
__device__ __forceinline__ float Exp(float x, bool chooses) { return chooses ? ExactExp(x) : expf(x); }

struct RouteSoftmax {
  float top, sum;
};

__device__ __forceinline__ float Score(RouteScore kind, float logit, const RouteSoftmax& softmax, bool chooses) {
  if (kind == RouteScore::kSoftmax) return Exp(logit - softmax.top, chooses) / softmax.sum;
  if (kind == RouteScore::kSigmoid) return 1.0f / (1.0f + Exp(-logit, chooses));
  if (kind == RouteScore::kSqrtSoftplus) {
    return sqrtf(fmaxf(logit, 0.0f) + ExactLog1p(ExactExp(-fabsf(logit))));
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

// Puts the first of the largest keys of a lane in front; equal keys stay in their order.
__device__ __forceinline__ void BringForward(uint32_t (&key)[BF_VALUES], uint32_t (&id)[BF_VALUES]) {
#pragma unroll
  for (int i = BF_VALUES - 2; i >= 0; --i) {
    const bool swap = key[i] < key[i + 1];
    const uint32_t low = swap ? key[i] : key[i + 1], low_id = swap ? id[i] : id[i + 1];
    key[i] = swap ? key[i + 1] : key[i], id[i] = swap ? id[i + 1] : id[i];
    key[i + 1] = low, id[i + 1] = low_id;
  }
}

// A lane's first key is its largest: few keys are sorted at once, of many the largest is found each time.
constexpr bool kSorted = BF_VALUES <= 8;
__device__ __forceinline__ void SortKeys(uint32_t (&key)[BF_VALUES], uint32_t (&id)[BF_VALUES]) {
#pragma unroll
  for (int pass = 0; pass + 1 < (kSorted ? BF_VALUES : 0); ++pass) BringForward(key, id);
}

// The largest key of all lanes, among equal ones that with the smallest id.
struct Best {
  uint32_t key, id;  // id: of the lane that has it
  int lane;
  bool here;
};
__device__ __forceinline__ Best FindBest(uint32_t (&key)[BF_VALUES], uint32_t (&id)[BF_VALUES]) {
  if constexpr (!kSorted) BringForward(key, id);
  Best best;
  best.key = WarpMax(key[0]);
  best.id = id[0];
  best.here = key[0] == best.key;
  uint32_t lanes = __ballot_sync(kAll, best.here);
  if (__popc(lanes) > 1) {
    const uint32_t first = WarpMin(best.here ? id[0] : kAll);
    best.here = best.here && id[0] == first;
    lanes = __ballot_sync(kAll, best.here);
  }
  best.lane = __ffs(static_cast<int>(lanes)) - 1;
  return best;
}
__device__ __forceinline__ void DropFirst(uint32_t (&key)[BF_VALUES], uint32_t (&id)[BF_VALUES]) {
#pragma unroll
  for (int i = 0; i + 1 < BF_VALUES; ++i) key[i] = key[i + 1], id[i] = id[i + 1];
  key[BF_VALUES - 1] = kTaken;
}

// The top_k largest keys, largest first, equal keys by id; the ids and the values behind the keys.
__device__ __forceinline__ void TakeBest(uint32_t (&key)[BF_VALUES], int top_k, int lane, int32_t* ids, float* values) {
  uint32_t id[BF_VALUES];
#pragma unroll
  for (int i = 0; i < BF_VALUES; ++i) id[i] = static_cast<uint32_t>(lane + 32 * i);
  SortKeys(key, id);
#pragma unroll 1
  for (int j = 0; j < top_k; ++j) {
    const Best best = FindBest(key, id);
    if (!best.here) continue;
    ids[j] = static_cast<int32_t>(best.id), values[j] = Value(best.key);
    DropFirst(key, id);
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
    for (int j = lane; j < k; j += 32) weights[j] = Exp(weights[j] - top, false);
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
// What RouteRow does, for every rule.
__device__ __noinline__ void RouteRowByRule(const RouteArgs& args, int t, const float* logits, float* weights, int32_t* ids, int lane) {
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
        if (lane + 32 * i < args.E) softmax.sum += Exp(logit[i] - softmax.top, !by_logit);
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
        key[i] = Key(by_logit ? logit[i] : Score(args.score, logit[i], softmax, true) + correction);
      }
    }
    if (args.n_group > 1) KeepBestGroups(key, args, lane);
    TakeBest(key, args.top_k, lane, ids, weights);
  }
  __syncwarp();
  for (int j = lane; j < args.top_k; j += 32) {
    weights[j] = ids[j] < 0 ? 0.0f : Score(args.score, by_logit ? weights[j] : logits[ids[j]], softmax, !by_logit);
  }
  __syncwarp();
  Normalize(weights, args, lane);
  for (int j = lane; j < args.top_k; j += 32) {
    args.ids[static_cast<int64_t>(t) * args.top_k + j] = ids[j];
    args.weights[static_cast<int64_t>(t) * args.top_k + j] = weights[j] * args.routed_scaling;
  }
}

// Lane j has the key and id of slot j; `top` is the largest key.
__device__ __forceinline__ void StoreSoftmax(const RouteArgs& args, int t, uint32_t key, uint32_t id, uint32_t top, int lane) {
  const float weight = lane < args.top_k ? expf(Value(key) - Value(top)) : 0.0f;
  float sum = 1e-20f;
#pragma unroll 1
  for (int base = 0; base < args.top_k; base += 8) {
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += __shfl_sync(kAll, weight, base + j);  // lanes behind the slots have zero
  }
  if (lane >= args.top_k) return;
  args.ids[static_cast<int64_t>(t) * args.top_k + lane] = static_cast<int32_t>(id);
  args.weights[static_cast<int64_t>(t) * args.top_k + lane] = weight / sum * args.routed_scaling;
}

// A softmax over the chosen logits, which is most models' rule, without shared memory: lane j has slot j.
__device__ __forceinline__ void RouteRowBySoftmax(const RouteArgs& args, int t, const float* logits, int lane) {
  uint32_t key[BF_VALUES], id[BF_VALUES];
#pragma unroll
  for (int i = 0; i < BF_VALUES; ++i) {
    id[i] = static_cast<uint32_t>(lane + 32 * i);
    key[i] = lane + 32 * i < args.E ? Key(logits[lane + 32 * i]) : kTaken;
  }
  SortKeys(key, id);
  uint32_t slot_key = kTaken, slot_id = 0, top = kTaken;
#pragma unroll 1
  for (int j = 0; j < args.top_k; ++j) {
    const Best best = FindBest(key, id);
    if (j == 0) top = best.key;
    if (best.here) DropFirst(key, id);
    const uint32_t best_id = __shfl_sync(kAll, best.id, best.lane);
    if (lane == j) slot_key = best.key, slot_id = best_id;
  }
  StoreSoftmax(args, t, slot_key, slot_id, top, lane);
}

// Ids and weights of token t by one warp; its logits lie in shared or global memory, `weights` and `ids` are shared memory for top_k each.
__device__ __forceinline__ void RouteRow(const RouteArgs& args, int t, const float* logits, float* weights, int32_t* ids, int lane) {
  if (IsPlainSoftmax(args)) {
    RouteRowBySoftmax(args, t, logits, lane);
  } else {
    RouteRowByRule(args, t, logits, weights, ids, lane);
  }
}

/// The key and the id of each slot of a plain softmax, by a whole block: the place of a logit is the number of those before it. `keys` is
/// aligned shared memory for 32 * BF_VALUES keys, of which those behind the experts are kTaken; `slots` is shared memory for 32 keys and
/// ids, which are there after a barrier.
__device__ __forceinline__ void ChooseByCounting(const RouteArgs& args, const uint32_t* keys, uint2* slots) {
  constexpr int kGroups = 8 * BF_VALUES;  // of four keys
  const int part = static_cast<int>(threadIdx.x % 4);
#pragma unroll 1
  for (int e = static_cast<int>(threadIdx.x / 4); e < (args.E + 7) / 8 * 8; e += static_cast<int>(blockDim.x / 4)) {
    const uint32_t mine = keys[e];
    int before = 0;
#pragma unroll 8
    for (int group = part; group < kGroups; group += 4) {
      const uint4 other = reinterpret_cast<const uint4*>(keys)[group];
      const uint32_t limit = mine - (group < e / 4 ? 1 : 0);  // equal keys in order
      before += (other.x > limit ? 1 : 0) + (other.y > limit ? 1 : 0) + (other.z > limit ? 1 : 0) + (other.w > limit ? 1 : 0);
    }
    if (part < e % 4 && keys[e - e % 4 + part] == mine) ++before;  // its own group
    before += __shfl_xor_sync(kAll, before, 1);
    before += __shfl_xor_sync(kAll, before, 2);
    if (part == 0 && mine != kTaken && before < args.top_k) slots[before] = uint2{mine, static_cast<uint32_t>(e)};
  }
}

/// Their ids and weights, by one warp.
__device__ __forceinline__ void StoreChosen(const RouteArgs& args, int t, const uint2* slots, int lane) {
  const uint2 slot = slots[min(lane, args.top_k - 1)];
  StoreSoftmax(args, t, slot.x, slot.y, slots[0].x, lane);
}

/// RouteRow of a plain softmax by a whole block, much faster.
__device__ __forceinline__ void RouteRowByCounting(const RouteArgs& args, int t, const uint32_t* keys, uint2* slots) {
  ChooseByCounting(args, keys, slots);
  __syncthreads();
  if (threadIdx.x < 32) StoreChosen(args, t, slots, static_cast<int>(threadIdx.x));
}

}  // namespace billfish::cuda
