// A decode step between qkv and o: norm and rotation of the new queries and keys, the new place of the cache, attention over the cache.
//
//   BF_HEAD_DIM   a multiple of 16
//
// A row is the next token of its own sequence. Its keys are cut into chunks of 16; a cluster of kCtas blocks takes the chunks of up to 16
// query heads of one kv head, which are the rows of its tensor-core steps, so that keys and values are read once for all of them. A warp
// takes every (kCtas * kWarps)-th chunk, with a ring of its own. Long sequences are shared by several clusters (`groups`).
//
// Keys and values before the new one arrive while the previous kernel ends: they were written by earlier steps, which have ended, and
// no kernel of this step writes them, as it adds the new place alone. The position must stand in memory before the step begins.
//
// One block an SM suffices: room for more would cost registers in memory.
//
// Sums meet in a fixed order: the warps of a block, the blocks of a cluster (row r in block r % kCtas), the clusters in the block that ends
// last. Positions are read from memory: a recorded graph serves growing sequences. Grid: kCtas, DecodeTiles, groups * T.
#define BF_ACT 0
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/cluster.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/reduce.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kCtas = kHasClusters ? kDecodeCluster : 1, kWarps = kDecodeWarps, kStep = kCtas * kWarps;
constexpr int kChunk = kDecodeChunk, kChunkBytes = kChunk * kRowBytes;
constexpr int kSlots = kAttentionRows / kCtas;  // rows that a block finishes
// Chunks that a cluster takes before another one helps. Without clusters a block that helps costs no more than one that is there anyway.
constexpr int kGroupChunks = kHasClusters ? 4 * kStep : kStep;
constexpr int kPairs = (kHeadDim / 2 + 31) / 32;  // of a head, in a lane
constexpr int kPartStride = kHeadDim + 8;         // floats of a row of a warp's sums: rows lie eight banks apart
static_assert(kAttentionRows * (kPartStride * 4 + 8) <= 4 * kChunkBytes, "a warp's sums take the place of its ring");
static_assert(kDecodeSplits == 32, "a lane weighs a group");

// The shared memory of a block: rings, queries, the new key and value, what the other blocks send.
struct Shared {
  uint8_t* bytes;
  __device__ __forceinline__ uint8_t* Ring(int warp) const { return bytes + warp * 4 * kChunkBytes; }
  __device__ __forceinline__ float* Part(int warp) const { return reinterpret_cast<float*>(Ring(warp)); }
  __device__ __forceinline__ float2* PartTotals(int warp) const {
    return reinterpret_cast<float2*>(Part(warp) + kAttentionRows * kPartStride);
  }
  __device__ __forceinline__ uint16_t* Query(int row) const {
    return reinterpret_cast<uint16_t*>(bytes + kWarps * 4 * kChunkBytes + row * kRowBytes);
  }
  __device__ __forceinline__ uint16_t* NewKey() const { return Query(kAttentionRows); }
  __device__ __forceinline__ uint16_t* NewValue() const { return Query(kAttentionRows + 1); }
  __device__ __forceinline__ float* Inbox(int rank, int slot) const {
    return reinterpret_cast<float*>(Query(kAttentionRows + 2)) + (rank * kSlots + slot) * kHeadDim;
  }
  __device__ __forceinline__ float2* InboxTotals(int rank, int slot) const {
    return reinterpret_cast<float2*>(Inbox(kCtas, 0)) + rank * kSlots + slot;
  }
};

// What this block does.
struct Work {
  int token, rank, group, tile;              // the grid's places
  int kv_head, first_row, first_head, rows;  // query heads first_head .. first_head + rows
  int last, low;                             // the places of the sequence that the token sees
  int groups, from, end;                     // this cluster's chunks
  __device__ __forceinline__ Work(const AttentionDecodeArgs& args)
      : token(static_cast<int>(blockIdx.z) % args.T), rank(blockIdx.x), group(static_cast<int>(blockIdx.z) / args.T), tile(blockIdx.y) {
    const int heads = args.heads / args.kv_heads, tiles = (heads + kAttentionRows - 1) / kAttentionRows;
    kv_head = tile / tiles, first_row = tile % tiles * kAttentionRows, rows = min(kAttentionRows, heads - first_row);
    first_head = kv_head * heads + first_row;
    last = args.positions[token], low = args.window > 0 ? max(0, last - static_cast<int>(args.window) + 1) : 0;
    const int begin = low / kChunk, chunks = last / kChunk - begin + 1;
    const int wanted = min(args.groups, (chunks + kGroupChunks - 1) / kGroupChunks), share = (chunks + wanted - 1) / wanted;
    groups = (chunks + share - 1) / share;
    from = begin + group * share, end = min(from + share, begin + chunks);
  }
  __device__ __forceinline__ int Newest() const { return last / kChunk; }
  // One block of a cluster per tile of heads has the chunk of the new key.
  __device__ __forceinline__ bool HasNewest() const { return end == Newest() + 1 && (Newest() - from) % kCtas == rank; }
  // Blocks of the cluster and warps of this block that have a chunk: the first ones.
  __device__ __forceinline__ int ActiveCtas() const { return min(kCtas, end - from); }
  __device__ __forceinline__ int ActiveWarps() const { return min(kWarps, (end - from - rank + kCtas - 1) / kCtas); }
};

// Begins the copy of a chunk of keys, then values, to a stage of a warp's ring. Places from the new one on become zero.
__device__ __forceinline__ void FetchChunk(uint32_t stage, const uint16_t* keys, const uint16_t* values, int chunk, int last, int lane) {
  constexpr int kPieces = kHeadDim / 8;
#pragma unroll
  for (int i = lane; i < kChunk * kPieces; i += 32) {
    const int row = i / kPieces, place = chunk * kChunk + row;
    const uint32_t to = stage + row * kRowBytes + i % kPieces * 16;
    const int64_t from = place < last ? static_cast<int64_t>(place) * kHeadDim + i % kPieces * 8 : 0;
    CopyAsync16Zeroed(to, keys + from, place < last ? 16 : 0);
    CopyAsync16Zeroed(to + kChunkBytes, values + from, place < last ? 16 : 0);
  }
}

// The angles and norms of a token, a lane's pairs of them: the rotation pairs i with i + D / 2: (a, b) -> (a cos - b sin, b cos + a sin).
struct Rotation {
  float cosine[kPairs], sine[kPairs], q_a[kPairs], q_b[kPairs], k_a[kPairs], k_b[kPairs];
  __device__ __forceinline__ Rotation(const AttentionDecodeArgs& args, int position, int lane) {
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      const int i = lane + 32 * j;
      if (i >= kHeadDim / 2) continue;
      const int64_t at = static_cast<int64_t>(position) * (kHeadDim / 2) + i;
      cosine[j] = args.cosines[at], sine[j] = args.sines[at];
      if (args.q_norm != nullptr) q_a[j] = args.q_norm[i], q_b[j] = args.q_norm[kHeadDim / 2 + i];
      if (args.k_norm != nullptr) k_a[j] = args.k_norm[i], k_b[j] = args.k_norm[kHeadDim / 2 + i];
    }
  }
};

// Normalises and rotates the heads that the block needs, each by a warp: queries 0 .. rows - 1, then key and value if it has their chunk.
// All loads come before the first use.
__device__ __forceinline__ void MakeHeads(const AttentionDecodeArgs& args, const Work& work, const Shared& shared, const Rotation& rotation,
                                          int warp, int lane) {
  constexpr int kHalf = kHeadDim / 2, kMost = (kAttentionRows + 2 + kWarps - 1) / kWarps;
  const int count = work.rows + (work.HasNewest() ? 2 : 0);
  const float* in = args.qkv + static_cast<int64_t>(work.token) * (args.heads + 2 * args.kv_heads) * kHeadDim;
  float a[kMost][kPairs] = {}, b[kMost][kPairs] = {};
#pragma unroll
  for (int j = 0; j < kMost; ++j) {
    const int h = warp + kWarps * j;
    if (h >= count) continue;
    const int head = h < work.rows ? work.first_head + h : args.heads + (h - work.rows) * args.kv_heads + work.kv_head;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int i = lane + 32 * p;
      if (i < kHalf) a[j][p] = in[head * kHeadDim + i], b[j][p] = in[head * kHeadDim + kHalf + i];
    }
  }
#pragma unroll
  for (int j = 0; j < kMost; ++j) {
    const int h = warp + kWarps * j;
    if (h >= count) continue;
    const bool is_query = h < work.rows, is_key = h == work.rows;
    if ((is_query && args.q_norm != nullptr) || (is_key && args.k_norm != nullptr)) {
      float squares = 0;
#pragma unroll
      for (int p = 0; p < kPairs; ++p) squares += a[j][p] * a[j][p] + b[j][p] * b[j][p];
      const float factor = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(kHeadDim) + args.eps);
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        a[j][p] *= factor * (is_query ? rotation.q_a[p] : rotation.k_a[p]);
        b[j][p] *= factor * (is_query ? rotation.q_b[p] : rotation.k_b[p]);
      }
    }
    uint16_t* to = is_query ? shared.Query(h) : is_key ? shared.NewKey() : shared.NewValue();
    uint16_t* cache = nullptr;
    if (!is_query && work.first_row == 0) {
      cache = (is_key ? args.keys : args.values) + work.token * args.slot_stride + (work.kv_head * args.capacity + work.last) * kHeadDim;
    }
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int i = lane + 32 * p;
      if (i >= kHalf) continue;
      const float cosine = is_query || is_key ? rotation.cosine[p] : 1.0f, sine = is_query || is_key ? rotation.sine[p] : 0.0f;
      const uint32_t pair = PairFromFloats(a[j][p] * cosine - b[j][p] * sine, b[j][p] * cosine + a[j][p] * sine);
      to[i] = static_cast<uint16_t>(pair & 0xffffu), to[kHalf + i] = static_cast<uint16_t>(pair >> 16);
      if (cache != nullptr) cache[i] = static_cast<uint16_t>(pair & 0xffffu), cache[kHalf + i] = static_cast<uint16_t>(pair >> 16);
    }
  }
}

// Several parts of one row's softmax become one: values and sums of a part count 2^(its top - the largest).
template <int kMost>
struct Weights {
  float weight[kMost];
  float2 total{kLowest, 0};
  template <class Totals>
  __device__ __forceinline__ Weights(int count, const Totals& totals) {
    float2 part[kMost];
#pragma unroll
    for (int s = 0; s < kMost; ++s) {
      part[s] = s < count ? totals(s) : float2{kLowest, 0};
      total.x = fmaxf(total.x, part[s].x);
    }
#pragma unroll
    for (int s = 0; s < kMost; ++s) weight[s] = Exp2(part[s].x - total.x), total.y = fmaf(weight[s], part[s].y, total.y);
  }
  template <class Values>
  __device__ __forceinline__ float4 Sum(int count, const Values& values) const {
    float4 sum{0, 0, 0, 0};
#pragma unroll
    for (int s = 0; s < kMost; ++s) {
      if (s >= count) continue;
      const float4 v = values(s);
      sum.x = fmaf(weight[s], v.x, sum.x), sum.y = fmaf(weight[s], v.y, sum.y);
      sum.z = fmaf(weight[s], v.z, sum.z), sum.w = fmaf(weight[s], v.w, sum.w);
    }
    return sum;
  }
};

// Values d .. d + 3 of a row, over the weights of all keys and of the sink.
__device__ __forceinline__ void StoreRow(const AttentionDecodeArgs& args, const Work& work, int row, int d, float4 v, float2 total) {
  const int head = work.first_head + row;
  float factor = 1.0f / total.y;
  if (args.sinks != nullptr) {
    const float sink = args.sinks[head] * kLog2E, top = fmaxf(total.x, sink), shrink = Exp2(total.x - top);
    factor = shrink / (total.y * shrink + Exp2(sink - top));
  }
  *reinterpret_cast<uint2*>(args.out + (static_cast<int64_t>(work.token) * args.heads + head) * kHeadDim + d) =
      uint2{PairFromFloats(v.x * factor, v.y * factor), PairFromFloats(v.z * factor, v.w * factor)};
}

// The parts of clusters in memory, [groups][kAttentionRows][kHeadDim] values, then [groups][kAttentionRows] totals.
struct GroupParts {
  float* base;
  __device__ __forceinline__ GroupParts(const AttentionDecodeArgs& args, const Work& work) {
    base = args.partial + (static_cast<int64_t>(work.token) * gridDim.y + work.tile) * (kDecodeSplits * kAttentionRows * (kHeadDim + 2));
  }
  __device__ __forceinline__ float4* Values(int group, int row, int d) const {
    return reinterpret_cast<float4*>(base + (group * kAttentionRows + row) * kHeadDim + d);
  }
  __device__ __forceinline__ float2* Totals(int group, int row) const {
    return reinterpret_cast<float2*>(base + kDecodeSplits * kAttentionRows * kHeadDim) + group * kAttentionRows + row;
  }
};

// Every block asks for a part, those without work too.
__device__ __forceinline__ void PrefetchSoon(const AttentionDecodeArgs& args) {
  constexpr int64_t kLine = 128;
  const int64_t blocks = static_cast<int64_t>(gridDim.x) * gridDim.y * gridDim.z;
  const int64_t block = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  for (int64_t at = (block * blockDim.x + threadIdx.x) * kLine; at < args.soon_bytes; at += blocks * blockDim.x * kLine) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const uint8_t*>(args.soon) + at));
  }
}

// The last block to end adds up the clusters. The parts that others wrote are read past the first-level cache.
__device__ __forceinline__ void MergeGroups(const AttentionDecodeArgs& args, const Work& work, const GroupParts& parts, int warp,
                                            int lane) {
  __shared__ bool is_last;
  int32_t* arrivals = args.arrivals + static_cast<int64_t>(work.token) * gridDim.y + work.tile;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(arrivals, 1) == work.groups * min(kCtas, work.rows) - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  if (threadIdx.x == 0) *arrivals = 0;
  for (int row = warp; row < work.rows; row += kWarps) {
    const float2 mine = lane < work.groups ? __ldcg(parts.Totals(lane, row)) : float2{kLowest, 0};
    float top = mine.x;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
    const float weight = Exp2(mine.x - top);
    const float2 total{top, WarpSum(weight * mine.y)};
#pragma unroll
    for (int first = 0; first < kHeadDim; first += 128) {
      const int d = first + lane * 4;
      float4 sum{0, 0, 0, 0};
#pragma unroll 4
      for (int s = 0; s < work.groups; ++s) {
        const float w = __shfl_sync(0xffffffffu, weight, s);
        const float4 v = d < kHeadDim ? __ldcg(parts.Values(s, row, d)) : sum;
        sum.x = fmaf(w, v.x, sum.x), sum.y = fmaf(w, v.y, sum.y), sum.z = fmaf(w, v.z, sum.z), sum.w = fmaf(w, v.w, sum.w);
      }
      if (d < kHeadDim) StoreRow(args, work, row, d, sum, total);
    }
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(32 * kWarps, 1) attention_decode(const __grid_constant__ AttentionDecodeArgs args) {
  extern __shared__ __align__(16) uint8_t shared_bytes[];
  const Shared shared{shared_bytes};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  AllowDependents();
  PrefetchSoon(args);
  const Work work(args);
  if (work.group >= work.groups) return;  // the whole cluster
  ClusterArrive();                        // this block can be written to
  if (work.from + work.rank < work.end) {
    const int64_t head = work.token * args.slot_stride + work.kv_head * args.capacity * kHeadDim;
    const uint16_t *keys = args.keys + head, *values = args.values + head;
    const uint32_t ring = SharedAddress(shared.Ring(warp));
    const int first = work.from + work.rank + kCtas * warp;
    const auto fetch = [&](int chunk, int stage) {
      if (chunk < work.end) FetchChunk(ring + stage * 2 * kChunkBytes, keys, values, chunk, work.last, lane);
      CommitCopies();
    };
    fetch(first, 0);
    fetch(first + kStep, 1);
    {
      const Rotation rotation(args, work.last, lane);
      WaitForPredecessor();
      MakeHeads(args, work, shared, rotation, warp, lane);
    }
    __syncthreads();
    if (first < work.end) {
      Queries queries;
      queries.Load(shared.Query(min(lane / 4, work.rows - 1)), shared.Query(min(lane / 4 + 8, work.rows - 1)), lane % 4);
      const int lows[2] = {work.low, work.low}, highs[2] = {work.last, work.last};
      const float scale = args.scale * kLog2E;
      Softmax softmax;
      int stage = 0;
      for (int chunk = first; chunk < work.end; chunk += kStep, stage ^= 1) {
        WaitCopies<1>();
        __syncwarp();
        const int place = chunk * kChunk;
        const uint32_t at = ring + stage * 2 * kChunkBytes;
        if (chunk == work.Newest()) {
          uint8_t* to = shared.Ring(warp) + stage * 2 * kChunkBytes + (work.last - place) * kRowBytes;
          for (int i = lane; i < kHeadDim / 4; i += 32) {
            const bool is_key = i < kHeadDim / 8;
            const uint4 v = reinterpret_cast<const uint4*>(is_key ? shared.NewKey() : shared.NewValue())[i % (kHeadDim / 8)];
            reinterpret_cast<uint4*>(to + (is_key ? 0 : kChunkBytes))[i % (kHeadDim / 8)] = v;
          }
          __syncwarp();
        }
        const bool masked = place < work.low || place + kChunk - 1 > work.last;
        softmax.Step<kChunk>(queries, at, at + kChunkBytes, 0, place, scale, masked, lows, highs, lane);
        __syncwarp();
        fetch(chunk + 2 * kStep, stage);
      }
      softmax.Finish(scale);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = lane / 4 + 8 * i;
        if (row >= work.rows) continue;
#pragma unroll
        for (int n = 0; n < kHeadDim / 8; ++n) {
          *reinterpret_cast<float2*>(shared.Part(warp) + row * kPartStride + n * 8 + lane % 4 * 2) =
              float2{softmax.values[n][2 * i], softmax.values[n][2 * i + 1]};
        }
        if (lane % 4 == 0) shared.PartTotals(warp)[row] = float2{softmax.top[i], softmax.sum[i]};
      }
    }
    __syncthreads();
  } else {
    WaitForPredecessor();
  }
  ClusterWait();
  if (work.from + work.rank < work.end) {
    const int count = work.ActiveWarps();
    for (int row = warp; row < work.rows; row += kWarps) {
      const Weights<kWarps> weights(count, [&](int s) { return shared.PartTotals(s)[row]; });
      for (int d = lane * 4; d < kHeadDim; d += 128) {
        const float4 v =
            weights.Sum(count, [&](int s) { return *reinterpret_cast<const float4*>(shared.Part(s) + row * kPartStride + d); });
        StoreInBlock(reinterpret_cast<float4*>(shared.Inbox(work.rank, row / kCtas) + d), row % kCtas, v);
      }
      if (lane == 0) StoreInBlock(shared.InboxTotals(work.rank, row / kCtas), row % kCtas, weights.total);
    }
  }
  ClusterArrive();
  ClusterWait();
  if (work.rank >= work.rows) return;
  const GroupParts parts(args, work);
  const int count = work.ActiveCtas();
  for (int slot = warp; work.rank + slot * kCtas < work.rows; slot += kWarps) {
    const int row = work.rank + slot * kCtas;
    const Weights<kCtas> weights(count, [&](int s) { return *shared.InboxTotals(s, slot); });
    for (int d = lane * 4; d < kHeadDim; d += 128) {
      const float4 v = weights.Sum(count, [&](int s) { return *reinterpret_cast<const float4*>(shared.Inbox(s, slot) + d); });
      if (work.groups == 1) {
        StoreRow(args, work, row, d, v, weights.total);
      } else {
        *parts.Values(work.group, row, d) = v;
      }
    }
    if (work.groups > 1 && lane == 0) *parts.Totals(work.group, row) = weights.total;
  }
  if (work.groups > 1) MergeGroups(args, work, parts, warp, lane);
}
