// Attention of one token over the cache, which already holds its own key and value.
//
//   BF_HEAD_DIM   a multiple of 16
//
// The sequence is cut into up to kDecodeSplits parts of whole key tiles. A block takes one part for up to 16 query heads of one kv head:
// these are the rows of its tensor-core steps, so that keys and values are read once for all of them. Its four warps take 16 keys of a
// tile each. The last block of a kv head to end adds up the parts, in their order: the result does not depend on which block that is.
// The position is read from memory: a recorded graph serves a growing sequence. Grid: kDecodeSplits, DecodeTiles.
#define BF_ACT 0
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/dependent_launch.cuh"

namespace {
using namespace billfish::cuda;

// Sums of one part: [kAttentionRows][kHeadDim] weighted values, then tops, then sums of weights.
constexpr int kPartFloats = kAttentionRows * (kHeadDim + 2);

// Adds parts of one softmax: out[row][d] = sum_s w_s values_s[row][d] / sum_s w_s sum_s, w_s = 2^(top_s - top). With one row a group of
// threads; `weights` is shared memory for [kAttentionRows][count].
struct Merge {
  const float* parts;  // count parts of kPartFloats
  int count;
  float* weights;
  float* totals;  // [kAttentionRows][2]: top and sum
};

// Parts that another block wrote are read past the first-level cache.
template <bool kShared>
__device__ __forceinline__ float Read(const float* p) {
  if constexpr (kShared) return *p;
  return __ldcg(p);
}

template <bool kShared>
__device__ __forceinline__ void Weigh(const Merge& merge, int rows) {
  const int row = threadIdx.x;
  if (row < rows) {
    float top = kLowest, sum = 0;
    for (int s = 0; s < merge.count; ++s) {
      top = fmaxf(top, Read<kShared>(merge.parts + s * kPartFloats + kAttentionRows * kHeadDim + row));
    }
    for (int s = 0; s < merge.count; ++s) {
      const float* part = merge.parts + s * kPartFloats + kAttentionRows * kHeadDim + row;
      const float weight = Exp2(Read<kShared>(part) - top);
      merge.weights[row * merge.count + s] = weight;
      sum += weight * Read<kShared>(part + kAttentionRows);
    }
    merge.totals[2 * row] = top, merge.totals[2 * row + 1] = sum;
  }
  __syncthreads();
}

template <bool kShared>
__device__ __forceinline__ float Weighted(const Merge& merge, int row, int d) {
  float value = 0;
  for (int s = 0; s < merge.count; ++s) {
    value += merge.weights[row * merge.count + s] * Read<kShared>(merge.parts + s * kPartFloats + row * kHeadDim + d);
  }
  return value;
}

// The attention itself, with the sink; totals hold what Weigh found.
__device__ __forceinline__ float Scaled(const AttentionArgs& args, const Merge& merge, int row, int head, float value) {
  const float top = merge.totals[2 * row], sum = merge.totals[2 * row + 1];
  if (args.sinks == nullptr) return value / sum;
  const float sink = args.sinks[head] * kLog2E, highest = fmaxf(top, sink), factor = Exp2(top - highest);
  return value * factor / (sum * factor + Exp2(sink - highest));
}
}  // namespace

extern "C" __global__ void __launch_bounds__(128) attention_decode(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(16) uint8_t shared_bytes[];
  __shared__ float weights[kAttentionRows * kDecodeSplits], totals[kAttentionRows * 2];
  __shared__ bool is_last;
  const uint32_t shared = SharedAddress(shared_bytes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = args.heads / args.kv_heads;
  const int tiles = (group + kAttentionRows - 1) / kAttentionRows;
  const int kv_head = blockIdx.y / tiles, first_row = blockIdx.y % tiles * kAttentionRows, rows = min(kAttentionRows, group - first_row);
  const int first_head = kv_head * group + first_row, split = blockIdx.x;
  AllowDependents();
  WaitForPredecessor();
  const int last = *args.position, window = static_cast<int>(args.window);
  const int low = window > 0 ? max(0, last - window + 1) : 0;
  const int begin = low / kAttentionKeys * kAttentionKeys;
  const int key_tiles = (last - begin) / kAttentionKeys + 1, per_split = (key_tiles + kDecodeSplits - 1) / kDecodeSplits;
  const int splits = (key_tiles + per_split - 1) / per_split;
  if (split >= splits) return;
  const int from = begin + split * per_split * kAttentionKeys, end = min(from + per_split * kAttentionKeys, last + 1);

  const uint16_t* keys = args.keys + kv_head * args.capacity * kHeadDim;
  const uint16_t* values = args.values + kv_head * args.capacity * kHeadDim;
  const auto fetch = [&](int tile, int stage) {
    CopyTile(shared + stage * 2 * kTileBytes, keys, tile, end);
    CopyTile(shared + stage * 2 * kTileBytes + kTileBytes, values, tile, end);
    CommitCopies();
  };
  fetch(from, 0);
  const auto query = [&](int row) { return args.q + static_cast<int64_t>(first_head + min(row, rows - 1)) * kHeadDim; };
  Queries queries;
  queries.Load(query(lane / 4), query(lane / 4 + 8), lane % 4);
  const int lows[2] = {low, low}, highs[2] = {last, last};
  Softmax softmax;
  int stage = 0;
  for (int tile = from; tile < end; tile += kAttentionKeys, stage ^= 1) {
    if (tile + kAttentionKeys < end) {
      fetch(tile + kAttentionKeys, stage ^ 1);
      WaitCopies<1>();
    } else {
      WaitCopies<0>();
    }
    __syncthreads();
    const uint32_t at = shared + stage * 2 * kTileBytes;
    const bool masked = tile < low || tile + kAttentionKeys - 1 > last;
    softmax.Step<16>(queries, at, at + kTileBytes, warp * 16, tile, args.scale * kLog2E, masked, lows, highs, lane);
    __syncthreads();
  }
  softmax.FinishSums();

  // The four warps' parts meet in the memory of the tiles.
  float* parts = reinterpret_cast<float*>(shared_bytes);
  float* mine = parts + warp * kPartFloats;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + 8 * i;
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      mine[row * kHeadDim + n * 8 + lane % 4 * 2] = softmax.values[n][2 * i];
      mine[row * kHeadDim + n * 8 + lane % 4 * 2 + 1] = softmax.values[n][2 * i + 1];
    }
    if (lane % 4 == 0) {
      mine[kAttentionRows * kHeadDim + row] = softmax.top[i];
      mine[kAttentionRows * (kHeadDim + 1) + row] = softmax.sum[i];
    }
  }
  __syncthreads();
  const Merge block{parts, 4, weights, totals};
  Weigh<true>(block, rows);
  const auto store = [&](int row, int d, float value) {
    args.out[static_cast<int64_t>(first_head + row) * kHeadDim + d] = static_cast<uint16_t>(PairFromFloats(value, 0.0f));
  };
  if (splits == 1) {
    for (int i = threadIdx.x; i < rows * kHeadDim; i += blockDim.x) {
      store(i / kHeadDim, i % kHeadDim,
            Scaled(args, block, i / kHeadDim, first_head + i / kHeadDim, Weighted<true>(block, i / kHeadDim, i % kHeadDim)));
    }
    return;
  }
  float* all = args.partial + static_cast<int64_t>(blockIdx.y) * kDecodeSplits * kPartFloats;
  float* part = all + split * kPartFloats;
  for (int i = threadIdx.x; i < rows * kHeadDim; i += blockDim.x) part[i] = Weighted<true>(block, i / kHeadDim, i % kHeadDim);
  if (threadIdx.x < rows) {
    part[kAttentionRows * kHeadDim + threadIdx.x] = totals[2 * threadIdx.x];
    part[kAttentionRows * (kHeadDim + 1) + threadIdx.x] = totals[2 * threadIdx.x + 1];
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(args.arrivals + blockIdx.y, 1) == splits - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  if (threadIdx.x == 0) args.arrivals[blockIdx.y] = 0;
  const Merge whole{all, splits, weights, totals};
  Weigh<false>(whole, rows);
  for (int i = threadIdx.x; i < rows * kHeadDim; i += blockDim.x) {
    store(i / kHeadDim, i % kHeadDim,
          Scaled(args, whole, i / kHeadDim, first_head + i / kHeadDim, Weighted<false>(whole, i / kHeadDim, i % kHeadDim)));
  }
}
