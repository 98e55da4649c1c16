// A decode step between qkv and o: norm and rotation of the new queries and keys, the new place of the cache, attention over the cache.
//
//   BF_HEAD_DIM   a multiple of 16
//   BF_STAGES     chunks of keys and values that a warp has on their way or in use: 1 or 2
//
// A row is the next token of its own sequence. Its keys are cut into chunks of 16; a cluster of blocks (gridDim.x of them) takes the chunks
// of up to 16 query heads of one kv head, which are the rows of its tensor-core steps, so that keys and values are read once for all of
// them. A warp of the cluster takes every n-th chunk. Long sequences are shared by several clusters (`groups`).
//
// Keys and values before the new one arrive while the previous kernel ends: they were written by earlier steps, which have ended, and
// no kernel of this step writes them, as it adds the new place alone. The position must stand in memory before the step begins.
//
// Sums meet in a fixed order: the warps of a block, the blocks of a cluster (row r in block r % gridDim.x), the clusters in the one that
// ends last. Positions are read from memory: a recorded graph serves growing sequences. Grid: blocks, DecodeTiles, groups * T.
#define BF_ACT 0
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/mailbox.cuh"
#include "cuda/kernels/parameters.cuh"
#include "cuda/kernels/reduce.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = kDecodeWarps, kMostBlocks = kHasClusters ? kDecodeCluster : 1;
constexpr int kChunk = kDecodeChunk, kChunkBytes = kChunk * kRowBytes;
// Chunks that a warp takes before another cluster helps. Without clusters a block that helps costs no more than one that is there anyway.
constexpr int kRounds = kHasClusters ? 2 * BF_STAGES : 1;
// Lanes of a head, four pairs each, in the making of the queries and the key.
constexpr int kHalf = kHeadDim / 2;
constexpr int kHeadLanes = kHalf <= 8 ? 2 : kHalf <= 16 ? 4 : kHalf <= 32 ? 8 : kHalf <= 64 ? 16 : 32;
constexpr int kPartStride = kHeadDim + 8;  // floats of a row of a warp's sums: rows lie eight banks apart
constexpr int kWarpBytes = DecodeWarpBytes(kHeadDim), kStages = BF_STAGES;
static_assert(2 * kChunkBytes <= kWarpBytes && kAttentionRows * (kPartStride * 4 + 8) <= kWarpBytes && kWarpBytes % 16 == 0);

// The shared memory of a block: keys and values, queries, the new key and value, what the other blocks send.
struct Shared {
  uint8_t* bytes;
  __device__ __forceinline__ uint8_t* Chunk(int warp, int stage = 0) const { return bytes + (warp * kStages + stage) * kWarpBytes; }
  __device__ __forceinline__ float* Part(int warp) const { return reinterpret_cast<float*>(Chunk(warp)); }
  __device__ __forceinline__ float2* PartTotals(int warp) const {
    return reinterpret_cast<float2*>(Part(warp) + kAttentionRows * kPartStride);
  }
  __device__ __forceinline__ uint16_t* Query(int row) const {
    return reinterpret_cast<uint16_t*>(bytes + kStages * kWarps * kWarpBytes + row * kRowBytes);
  }
  __device__ __forceinline__ uint16_t* NewKey() const { return Query(kAttentionRows); }
  __device__ __forceinline__ uint16_t* NewValue() const { return Query(kAttentionRows + 1); }
  // Number `i` of what the blocks of the cluster send for the rows of this one.
  __device__ __forceinline__ float* Inbox(int i) const { return reinterpret_cast<float*>(Query(kAttentionRows + 2)) + i * kHeadDim; }
  __device__ __forceinline__ float2* InboxTotals(int i) const { return reinterpret_cast<float2*>(Inbox(kAttentionRows)) + i; }
};

// What this block does.
struct Work {
  int token, rank, blocks, group, tile;      // the grid's places; `blocks` are those of a cluster that take part
  int kv_head, first_row, first_head, rows;  // query heads first_head .. first_head + rows
  int last, low;                             // the places of the sequence that the token sees
  int groups, from, end;                     // this cluster's chunks
  int blocks_log2;
  // Divisions are slow, and most calls need none.
  __device__ __forceinline__ Work(const AttentionDecodeArgs& args)
      : token(blockIdx.z), rank(blockIdx.x), blocks(gridDim.x), group(0), tile(blockIdx.y) {
    if (args.T == 1) {
      token = 0, group = blockIdx.z;
    } else if (args.groups > 1) {
      token = static_cast<int>(blockIdx.z) % args.T, group = static_cast<int>(blockIdx.z) / args.T;
    }
    last = args.positions[token], low = args.window > 0 ? max(0, last - static_cast<int>(args.window) + 1) : 0;
    const int tiles = (args.kv_rows + kAttentionRows - 1) / kAttentionRows;
    kv_head = tile, first_row = 0;
    if (tiles > 1) kv_head = tile / tiles, first_row = tile % tiles * kAttentionRows;
    rows = min(kAttentionRows, args.kv_rows - first_row), first_head = kv_head * args.kv_rows + first_row;
    const int begin = low / kChunk, chunks = last / kChunk - begin + 1, round = blocks * kWarps * kRounds;
    int share = chunks;
    groups = 1;
    if (chunks <= kWarps) {
      blocks = 1;  // its warps have one each, and nothing to wait for
    } else if (args.groups > 1 && chunks > round) {
      const int wanted = min(args.groups, (chunks + round - 1) / round);
      share = (chunks + wanted - 1) / wanted, groups = (chunks + share - 1) / share;
    }
    from = begin + group * share, end = min(from + share, begin + chunks);
    blocks_log2 = 31 - __clz(blocks);
  }
  __device__ __forceinline__ int Newest() const { return last / kChunk; }
  // One block of a cluster per tile of heads has the chunk of the new key.
  __device__ __forceinline__ bool HasNewest() const { return end == Newest() + 1 && ((Newest() - from) & (blocks - 1)) == rank; }
  // Blocks of the cluster and warps of this block that have a chunk: the first ones.
  __device__ __forceinline__ int ActiveBlocks() const { return min(blocks, end - from); }
  __device__ __forceinline__ int ActiveWarps() const { return min(kWarps, (end - from - rank + blocks - 1) >> blocks_log2); }
  // The place of what block `from_rank` sends for the row in a slot of the block that gets it.
  __device__ __forceinline__ int Inbox(int from_rank, int slot) const { return (from_rank * kAttentionRows >> blocks_log2) + slot; }
  // Rows that this block finishes: rank, rank + blocks, ...
  __device__ __forceinline__ int OwnRows() const { return rank < rows ? (rows - rank + blocks - 1) >> blocks_log2 : 0; }
};

// Begins the copy of a chunk of keys, then values, to a warp's memory, unless it lies behind `end`. Places from the new one on become zero.
// A group of copies in any case.
__device__ __forceinline__ void FetchChunk(uint32_t stage, const uint16_t* keys, const uint16_t* values, int chunk, int end, int last,
                                           int lane) {
  constexpr int kPieces = kHeadDim / 8;
#pragma unroll
  for (int i = lane; i < (chunk < end ? kChunk * kPieces : 0); i += 32) {
    const int row = i / kPieces, place = chunk * kChunk + row;
    const uint32_t to = stage + row * kRowBytes + i % kPieces * 16;
    const int64_t from = place < last ? static_cast<int64_t>(place) * kHeadDim + i % kPieces * 8 : 0;
    CopyAsync16Zeroed(to, keys + from, place < last ? 16 : 0);
    CopyAsync16Zeroed(to + kChunkBytes, values + from, place < last ? 16 : 0);
  }
  CommitCopies();
}

// The next layer's part of the cache is most often far away by then.
__device__ __forceinline__ void PrefetchNext(const AttentionDecodeArgs& args, int64_t from, int lane) {
  constexpr int kLineValues = 64;
  if (args.next_keys == nullptr) return;
#pragma unroll
  for (int i = lane * kLineValues; i < kChunk * kHeadDim; i += 32 * kLineValues) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(args.next_keys + from + i));
    asm volatile("prefetch.global.L2 [%0];" ::"l"(args.next_values + from + i));
  }
}

__device__ __forceinline__ float4 LoadFour(const float* from) { return *reinterpret_cast<const float4*>(from); }

// A lane's four pairs of a token's angles and norms: the rotation pairs i with i + D / 2: (a, b) -> (a cos - b sin, b cos + a sin).
struct Rotation {
  float4 cosine, sine, q_a, q_b, k_a, k_b;
  __device__ __forceinline__ Rotation(const AttentionDecodeArgs& args, int position, int i) {
    const float4 ones{1, 1, 1, 1};
    q_a = q_b = k_a = k_b = cosine = sine = ones;
    if (i >= kHalf) return;
    const int64_t at = static_cast<int64_t>(position) * kHalf + i;
    cosine = LoadFour(args.cosines + at), sine = LoadFour(args.sines + at);
    if (args.q_norm != nullptr) q_a = LoadFour(args.q_norm + i), q_b = LoadFour(args.q_norm + kHalf + i);
    if (args.k_norm != nullptr) k_a = LoadFour(args.k_norm + i), k_b = LoadFour(args.k_norm + kHalf + i);
  }
};

__device__ __forceinline__ float4 Scaled(float4 v, float4 w, float factor) {
  return {v.x * (factor * w.x), v.y * (factor * w.y), v.z * (factor * w.z), v.w * (factor * w.w)};
}
__device__ __forceinline__ float SumOfSquares(float4 v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }

// Normalises and rotates the heads that the block needs, each by kHeadLanes lanes: queries 0 .. rows - 1, then key and value if it has
// their chunk.
__device__ __forceinline__ void MakeHeads(const AttentionDecodeArgs& args, const Work& work, const Shared& shared, const Rotation& rotation,
                                          int i) {
  constexpr int kTogether = 32 * kWarps / kHeadLanes;
  const int count = work.rows + (work.HasNewest() ? 2 : 0);
  const float* in = args.qkv + static_cast<int64_t>(work.token) * (args.heads + 2 * args.kv_heads) * kHeadDim;
#pragma unroll 1
  for (int base = 0; base < count; base += kTogether) {
    const int h = base + static_cast<int>(threadIdx.x) / kHeadLanes;
    const bool is_query = h < work.rows, is_key = h == work.rows, works = h < count && i < kHalf;
    const int head = is_query ? work.first_head + h : args.heads + (h - work.rows) * args.kv_heads + work.kv_head;
    float4 a{0, 0, 0, 0}, b{0, 0, 0, 0};
    if (works) a = LoadFour(in + head * kHeadDim + i), b = LoadFour(in + head * kHeadDim + kHalf + i);
    float squares = SumOfSquares(a) + SumOfSquares(b);
#pragma unroll
    for (int step = kHeadLanes / 2; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
    if (!works) continue;
    if (is_query ? args.q_norm != nullptr : is_key && args.k_norm != nullptr) {
      const float factor = rsqrtf(squares / static_cast<float>(kHeadDim) + args.eps);
      a = Scaled(a, is_query ? rotation.q_a : rotation.k_a, factor), b = Scaled(b, is_query ? rotation.q_b : rotation.k_b, factor);
    }
    if (is_query || is_key) {
      const float4 c = rotation.cosine, s = rotation.sine, x = a;
      a = {x.x * c.x - b.x * s.x, x.y * c.y - b.y * s.y, x.z * c.z - b.z * s.z, x.w * c.w - b.w * s.w};
      b = {b.x * c.x + x.x * s.x, b.y * c.y + x.y * s.y, b.z * c.z + x.z * s.z, b.w * c.w + x.w * s.w};
    }
    const uint2 low{PairFromFloats(a.x, a.y), PairFromFloats(a.z, a.w)}, high{PairFromFloats(b.x, b.y), PairFromFloats(b.z, b.w)};
    uint16_t* to = is_query ? shared.Query(h) : is_key ? shared.NewKey() : shared.NewValue();
    *reinterpret_cast<uint2*>(to + i) = low, *reinterpret_cast<uint2*>(to + kHalf + i) = high;
    if (!is_query && work.first_row == 0) {
      uint16_t* cache =
          (is_key ? args.keys : args.values) + work.token * args.slot_stride + (work.kv_head * args.capacity + work.last) * kHeadDim;
      *reinterpret_cast<uint2*>(cache + i) = low, *reinterpret_cast<uint2*>(cache + kHalf + i) = high;
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
#pragma unroll 1
  for (int64_t at = (block * blockDim.x + threadIdx.x) * kLine; at < args.soon_bytes; at += blocks * blockDim.x * kLine) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const uint8_t*>(args.soon) + at));
  }
}

// Whether this block is the last of its rank among the clusters of its rows: each rank counts in its own bits.
__device__ __forceinline__ bool EndsLast(const AttentionDecodeArgs& args, const Work& work) {
  __shared__ bool is_last;
  int32_t* arrivals = args.arrivals + static_cast<int64_t>(work.token) * gridDim.y + work.tile;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const int bits = 32 >> work.blocks_log2, shift = work.rank * bits;
    const uint32_t before = static_cast<uint32_t>(atomicAdd(arrivals, 1 << shift)) >> shift;
    is_last = static_cast<int>(bits == 32 ? before : before & ((1u << bits) - 1)) == work.groups - 1;
    if (is_last) atomicSub(arrivals, work.groups << shift);
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

// The parts that others wrote are read past the first-level cache.
__device__ __forceinline__ void MergeGroups(const AttentionDecodeArgs& args, const Work& work, const GroupParts& parts, int row, int lane) {
  float2 total{kLowest, 0};
  for (int s = 0; s < work.groups; ++s) total.x = fmaxf(total.x, __ldcg(parts.Totals(s, row)).x);
  for (int d = lane * 4; d < kHeadDim; d += 128) {
    float4 sum{0, 0, 0, 0};
    total.y = 0;
#pragma unroll 4
    for (int s = 0; s < work.groups; ++s) {
      const float2 part = __ldcg(parts.Totals(s, row));
      const float4 v = __ldcg(parts.Values(s, row, d));
      const float w = Exp2(part.x - total.x);
      total.y = fmaf(w, part.y, total.y);
      sum.x = fmaf(w, v.x, sum.x), sum.y = fmaf(w, v.y, sum.y), sum.z = fmaf(w, v.z, sum.z), sum.w = fmaf(w, v.w, sum.w);
    }
    StoreRow(args, work, row, d, sum, total);
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(32 * kWarps, 1) attention_decode(const __grid_constant__ AttentionDecodeArgs args) {
  FetchParameters(args);
  extern __shared__ __align__(16) uint8_t shared_bytes[];
  __shared__ Mailbox mailbox;
  const Shared shared{shared_bytes};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  AllowDependents();
  const Work work(args);
  PrefetchSoon(args);
  if (work.group >= work.groups || work.rank >= work.blocks) return;
  const bool alone = work.blocks == 1;
  const bool active = work.from + work.rank < work.end;
  const int64_t cache = work.token * args.slot_stride + work.kv_head * args.capacity * kHeadDim;
  const uint32_t at = SharedAddress(shared.Chunk(warp));
  const int first = work.from + work.rank + work.blocks * warp, stride = work.blocks * kWarps;
#pragma unroll
  for (int s = 0; s < kStages; ++s) {
    FetchChunk(at + s * kWarpBytes, args.keys + cache, args.values + cache, first + s * stride, work.end, work.last, lane);
  }
  const int own = work.OwnRows();
  if (!alone) mailbox.Open(own * work.ActiveBlocks() * (kHeadDim * 4 + 8));
  if (active) {
    const int pair = static_cast<int>(threadIdx.x) % kHeadLanes * 4;
    const Rotation rotation(args, work.last, pair);
    if (first < work.end && (first + 1) * kChunk <= args.capacity) PrefetchNext(args, cache + first * kChunk * kHeadDim, lane);
    WaitForPredecessor();
    MakeHeads(args, work, shared, rotation, pair);
    __syncthreads();
    if (first < work.end) {
      const SharedQueries queries(shared.Query(0), work.rows, lane);
      const int lows[2] = {work.low, work.low}, highs[2] = {work.last, work.last};
      const float scale = args.scale * kLog2E;
      Softmax softmax;
      int stage = 0;
#pragma unroll 1
      for (int chunk = first; chunk < work.end; chunk += stride) {
        WaitCopies<kStages - 1>();
        __syncwarp();
        const int place = chunk * kChunk;
        if (chunk == work.Newest()) {
          uint8_t* to = shared.Chunk(warp, stage) + (work.last - place) * kRowBytes;
          for (int i = lane; i < kHeadDim / 4; i += 32) {
            const bool is_key = i < kHeadDim / 8;
            const uint4 v = reinterpret_cast<const uint4*>(is_key ? shared.NewKey() : shared.NewValue())[i % (kHeadDim / 8)];
            reinterpret_cast<uint4*>(to + (is_key ? 0 : kChunkBytes))[i % (kHeadDim / 8)] = v;
          }
          __syncwarp();
        }
        const bool masked = place < work.low || place + kChunk - 1 > work.last;
        const uint32_t keys = at + stage * kWarpBytes;
        softmax.Step<kChunk>(queries, keys, keys + kChunkBytes, 0, place, scale, masked, lows, highs, lane);
        __syncwarp();
        FetchChunk(keys, args.keys + cache, args.values + cache, chunk + kStages * stride, work.end, work.last, lane);
        stage = (stage + 1) % kStages;
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
  if (!alone) Mailbox::AwaitOthers();
  const GroupParts parts(args, work);
  const auto store = [&](int row, int d, float4 v, float2 total) {
    if (work.groups == 1) {
      StoreRow(args, work, row, d, v, total);
    } else {
      *parts.Values(work.group, row, d) = v;
      if (d == 0) *parts.Totals(work.group, row) = total;
    }
  };
  if (active) {
    const int count = work.ActiveWarps();
    for (int row = warp; row < work.rows; row += kWarps) {
      const int to = row & (work.blocks - 1), place = work.Inbox(work.rank, row >> work.blocks_log2);
      const Weights<kWarps> weights(count, [&](int s) { return shared.PartTotals(s)[row]; });
      for (int d = lane * 4; d < kHeadDim; d += 128) {
        const float4 v =
            weights.Sum(count, [&](int s) { return *reinterpret_cast<const float4*>(shared.Part(s) + row * kPartStride + d); });
        if (alone) {
          store(row, d, v, weights.total);
        } else {
          mailbox.Send(reinterpret_cast<float4*>(shared.Inbox(place) + d), to, v);
        }
      }
      if (lane == 0 && !alone) mailbox.Send(shared.InboxTotals(place), to, weights.total);
    }
  }
  if (own == 0) return;
  if (!alone) {
    mailbox.Await();
    const int count = work.ActiveBlocks();
    for (int slot = warp; slot < own; slot += kWarps) {
      const Weights<kMostBlocks> weights(count, [&](int s) { return *shared.InboxTotals(work.Inbox(s, slot)); });
      for (int d = lane * 4; d < kHeadDim; d += 128) {
        const float4 v = weights.Sum(count, [&](int s) { return *reinterpret_cast<const float4*>(shared.Inbox(work.Inbox(s, slot)) + d); });
        store(work.rank + slot * work.blocks, d, v, weights.total);
      }
    }
  }
  if (work.groups == 1 || !EndsLast(args, work)) return;
  for (int slot = warp; slot < own; slot += kWarps) MergeGroups(args, work, parts, work.rank + slot * work.blocks, lane);
}
