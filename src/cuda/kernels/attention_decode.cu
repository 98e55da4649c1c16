// Attention of T tokens of T sequences, each over its slot of the cache, which already holds its own key and value.
//
//   BF_HEAD_DIM   a multiple of 16
//
// The sequence is cut into up to kDecodeSplits parts of whole key tiles. A block takes one part for up to 16 query heads of one kv head:
// these are the rows of its tensor-core steps, so that keys and values are read once for all of them. Its four warps take 16 keys of a
// tile each. The last block of a kv head to end adds up the parts, in their order: the result does not depend on which block that is.
// Positions are read from memory: a recorded graph serves growing sequences. Grid: kDecodeSplits, DecodeTiles, T.
#define BF_ACT 0
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/reduce.cuh"

namespace {
using namespace billfish::cuda;

// One part of a softmax: [kAttentionRows][kStride] weighted values, then [kAttentionRows] pairs of largest score and sum of weights. In
// shared memory rows lie eight banks apart.
template <bool kShared>
struct Part {
  static constexpr int kStride = kHeadDim + (kShared ? 8 : 0);
  static constexpr int kFloats = kAttentionRows * (kStride + 2);
  // Parts that another block wrote are read past the first-level cache.
  static __device__ __forceinline__ float2 Totals(const float* part, int row) {
    const float2* p = reinterpret_cast<const float2*>(part + kAttentionRows * kStride) + row;
    if constexpr (kShared) return *p;
    return __ldcg(p);
  }
  static __device__ __forceinline__ float4 Values(const float* part, int row, int d) {
    const float4* p = reinterpret_cast<const float4*>(part + row * kStride + d);
    if constexpr (kShared) return *p;
    return __ldcg(p);
  }
};

// The sum of parts 0 .. count - 1 of one softmax, count <= kDecodeSplits: values and sums of part s count 2^(top_s - top).
template <bool kShared>
struct Merge {
  const float* parts;
  int count;
  float* weights;  // [kAttentionRows][kDecodeSplits]
  float2* totals;  // [kAttentionRows]

  // A warp finds the weights of a row, a lane those of a part.
  __device__ __forceinline__ void Weigh(int rows) const {
    static_assert(kDecodeSplits == 32);
    const int lane = threadIdx.x % 32;
    for (int row = threadIdx.x / 32; row < rows; row += 4) {
      const float2 part = lane < count ? Part<kShared>::Totals(parts + lane * Part<kShared>::kFloats, row) : float2{kLowest, 0};
      float top = part.x;
#pragma unroll
      for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
      const float weight = Exp2(part.x - top), sum = WarpSum(weight * part.y);
      weights[row * kDecodeSplits + lane] = weight;
      if (lane == 0) totals[row] = float2{top, sum};
    }
    __syncthreads();
  }

  // Values d .. d + 3 of a row.
  __device__ __forceinline__ float4 Sum(int row, int d) const {
    float4 sum{0, 0, 0, 0};
#pragma unroll 8
    for (int s = 0; s < count; ++s) {
      const float w = weights[row * kDecodeSplits + s];
      const float4 v = Part<kShared>::Values(parts + s * Part<kShared>::kFloats, row, d);
      sum.x = fmaf(w, v.x, sum.x), sum.y = fmaf(w, v.y, sum.y), sum.z = fmaf(w, v.z, sum.z), sum.w = fmaf(w, v.w, sum.w);
    }
    return sum;
  }

  // What the sums of a row are multiplied with: one over the weights of all keys and of the sink.
  __device__ __forceinline__ float Factor(const AttentionArgs& args, int row, int head) const {
    const float2 total = totals[row];
    if (args.sinks == nullptr) return 1.0f / total.y;
    const float sink = args.sinks[head] * kLog2E, top = fmaxf(total.x, sink), factor = Exp2(total.x - top);
    return factor / (total.y * factor + Exp2(sink - top));
  }

  __device__ __forceinline__ void Store(const AttentionArgs& args, int64_t token, int rows, int first_head) const {
    for (int i = threadIdx.x; i < rows * (kHeadDim / 4); i += blockDim.x) {
      const int row = i / (kHeadDim / 4), d = i % (kHeadDim / 4) * 4, head = first_head + row;
      const float4 v = Sum(row, d);
      const float factor = Factor(args, row, head);
      *reinterpret_cast<uint2*>(args.out + (token * args.heads + head) * kHeadDim + d) =
          uint2{PairFromFloats(v.x * factor, v.y * factor), PairFromFloats(v.z * factor, v.w * factor)};
    }
  }
};
}  // namespace

extern "C" __global__ void __launch_bounds__(128) attention_decode(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(16) uint8_t shared_bytes[];
  __shared__ float weights[kAttentionRows * kDecodeSplits];
  __shared__ float2 totals[kAttentionRows];
  __shared__ bool is_last;
  const uint32_t shared = SharedAddress(shared_bytes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = args.heads / args.kv_heads;
  const int tiles = (group + kAttentionRows - 1) / kAttentionRows;
  const int kv_head = blockIdx.y / tiles, first_row = blockIdx.y % tiles * kAttentionRows, rows = min(kAttentionRows, group - first_row);
  const int first_head = kv_head * group + first_row, split = blockIdx.x;
  const int64_t token = blockIdx.z, softmaxes = token * gridDim.y + blockIdx.y;
  AllowDependents();
  const int last = args.positions[token], window = static_cast<int>(args.window);
  const int low = window > 0 ? max(0, last - window + 1) : 0;
  const int begin = low / kAttentionKeys * kAttentionKeys;
  const int key_tiles = (last - begin) / kAttentionKeys + 1, per_split = (key_tiles + kDecodeSplits - 1) / kDecodeSplits;
  const int splits = (key_tiles + per_split - 1) / per_split;
  if (split >= splits) return;
  const int from = begin + split * per_split * kAttentionKeys, end = min(from + per_split * kAttentionKeys, last + 1);

  const int64_t slot = token * args.slot_stride + kv_head * args.capacity * kHeadDim;
  const uint16_t* keys = args.keys + slot;
  const uint16_t* values = args.values + slot;
  const auto fetch = [&](int tile, int stage) {
    CopyTile<128>(shared + stage * 2 * kTileBytes, keys, tile, end);
    CopyTile<128>(shared + stage * 2 * kTileBytes + kTileBytes, values, tile, end);
    CommitCopies();
  };
  // The previous kernel writes the last key and value alone: other tiles arrive while it ends.
  const bool early = from + kAttentionKeys <= last;
  if (early) fetch(from, 0);
  WaitForPredecessor();
  if (!early) fetch(from, 0);
  const auto query = [&](int row) { return args.q + (token * args.heads + first_head + min(row, rows - 1)) * kHeadDim; };
  Queries queries;
  queries.Load(query(lane / 4), query(lane / 4 + 8), lane % 4);
  const int lows[2] = {low, low}, highs[2] = {last, last};
  const float scale = args.scale * kLog2E;
  Softmax softmax;
  int stage = 0;
  for (int tile = from; tile < end; tile += kAttentionKeys, stage ^= 1) {
    AwaitTile(fetch, tile, end, stage);
    const uint32_t at = shared + stage * 2 * kTileBytes;
    const bool masked = tile < low || tile + kAttentionKeys - 1 > last;
    softmax.Step<16>(queries, at, at + kTileBytes, warp * 16, tile, scale, masked, lows, highs, lane);
    __syncthreads();
  }
  softmax.Finish(scale);

  // The four warps' parts meet in the memory of the tiles.
  float* parts = reinterpret_cast<float*>(shared_bytes);
  float* mine = parts + warp * Part<true>::kFloats;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + 8 * i;
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      *reinterpret_cast<float2*>(mine + row * Part<true>::kStride + n * 8 + lane % 4 * 2) =
          float2{softmax.values[n][2 * i], softmax.values[n][2 * i + 1]};
    }
    if (lane % 4 == 0) {
      reinterpret_cast<float2*>(mine + kAttentionRows * Part<true>::kStride)[row] = float2{softmax.top[i], softmax.sum[i]};
    }
  }
  __syncthreads();
  const Merge<true> block{parts, 4, weights, totals};
  block.Weigh(rows);
  if (splits == 1) {
    block.Store(args, token, rows, first_head);
    return;
  }
  float* all = args.partial + softmaxes * kDecodeSplits * Part<false>::kFloats;
  float* part = all + split * Part<false>::kFloats;
  for (int i = threadIdx.x; i < rows * (kHeadDim / 4); i += blockDim.x) {
    const int row = i / (kHeadDim / 4), d = i % (kHeadDim / 4) * 4;
    *reinterpret_cast<float4*>(part + row * kHeadDim + d) = block.Sum(row, d);
  }
  if (threadIdx.x < rows) reinterpret_cast<float2*>(part + kAttentionRows * kHeadDim)[threadIdx.x] = totals[threadIdx.x];
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(args.arrivals + softmaxes, 1) == splits - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  if (threadIdx.x == 0) args.arrivals[softmaxes] = 0;
  const Merge<false> whole{all, splits, weights, totals};
  whole.Weigh(rows);
  whole.Store(args, token, rows, first_head);
}
