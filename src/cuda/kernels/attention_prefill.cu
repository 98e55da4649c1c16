// Causal attention of many tokens over the cache, which already holds their own keys and values.
//
//   BF_HEAD_DIM   a multiple of 16
//
// A kv head's rows are its pairs (token, query head that shares the keys), token by token. A block takes 16 of them a warp and walks over
// the keys that any of them sees, 64 at a time; the next keys and values arrive while these are used. Key tiles begin at multiples of 64 of
// the sequence, so that a token's result does not depend on the tokens beside it. Grid: row blocks, kv heads. The last rows see the most
// keys and go first.
#define BF_ACT 0
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/dependent_launch.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = PrefillWarps(kHeadDim);
constexpr int kRows = kWarps * kAttentionRows;
}  // namespace

extern "C" __global__ void __launch_bounds__(32 * kWarps, kHeadDim <= 64 ? 3 : 1)
    attention_prefill(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(16) uint8_t shared_bytes[];
  const uint32_t shared = SharedAddress(shared_bytes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = args.heads / args.kv_heads, kv_head = blockIdx.y;
  const int rows = args.T * group, block = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  const uint16_t* keys = args.keys + kv_head * args.capacity * kHeadDim;
  const uint16_t* values = args.values + kv_head * args.capacity * kHeadDim;
  AllowDependents();
  WaitForPredecessor();
  const int base = *args.position, window = static_cast<int>(args.window);
  const auto first_key = [&](int token) { return window > 0 ? max(0, base + token - window + 1) : 0; };
  // A row past the end repeats the last one and is not stored.
  int token[2], head[2], low[2], high[2];
  bool stored[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = block + warp * 16 + lane / 4 + 8 * i, real = min(row, rows - 1);
    stored[i] = row < rows;
    token[i] = real / group, head[i] = kv_head * group + real % group;
    low[i] = first_key(token[i]), high[i] = base + token[i];
  }
  const auto place = [&](int i) { return (static_cast<int64_t>(token[i]) * args.heads + head[i]) * kHeadDim; };
  Queries queries;
  queries.Load(args.q + place(0), args.q + place(1), lane % 4);
  // What the rows of the block and of this warp see.
  const int begin = first_key(min(block, rows - 1) / group) / kAttentionKeys * kAttentionKeys;
  const int end = base + min(block + kRows - 1, rows - 1) / group + 1;
  const int warp_first = min(block + warp * 16, rows - 1) / group, warp_last = min(block + warp * 16 + 15, rows - 1) / group;
  const int warp_low = first_key(warp_first), warp_high = base + warp_last;  // any row
  const int all_low = first_key(warp_last), all_high = base + warp_first;    // every row
  const auto fetch = [&](int tile, int stage) {
    CopyTile<32 * kWarps>(shared + stage * 2 * kTileBytes, keys, tile, end);
    CopyTile<32 * kWarps>(shared + stage * 2 * kTileBytes + kTileBytes, values, tile, end);
    CommitCopies();
  };
  const float scale = args.scale * kLog2E;
  Softmax softmax;
  fetch(begin, 0);
  int stage = 0;
  for (int tile = begin; tile < end; tile += kAttentionKeys, stage ^= 1) {
    AwaitTile(fetch, tile, end, stage);
    const uint32_t at = shared + stage * 2 * kTileBytes;
    if (tile <= warp_high && tile + kAttentionKeys > warp_low) {
      const bool masked = tile < all_low || tile + kAttentionKeys - 1 > all_high;
      softmax.Step<kAttentionKeys>(queries, at, at + kTileBytes, 0, tile, scale, masked, low, high, lane);
    }
    __syncthreads();
  }
  softmax.Finish(scale);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (!stored[i]) continue;
    float factor = 1.0f, sum = softmax.sum[i];
    if (args.sinks != nullptr) {
      const float sink = args.sinks[head[i]] * kLog2E, top = fmaxf(softmax.top[i], sink);
      factor = Exp2(softmax.top[i] - top);
      sum = sum * factor + Exp2(sink - top);
    }
    factor /= sum;
    uint32_t* out = reinterpret_cast<uint32_t*>(args.out + place(i));
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      out[n * 4 + lane % 4] = PairFromFloats(softmax.values[n][2 * i] * factor, softmax.values[n][2 * i + 1] * factor);
    }
  }
}
