// The step between attention and experts of a few rows: x + delta, its norm in bf16, the router's matrix and its rule, in one launch.
//
//   BF_VALUES   logits that a lane of the routing warp holds (route.cuh)
//
// A cluster has one row. Each block norms it for itself, which costs less than waiting for another block to send it. The experts are dealt
// out to the blocks in tiles of up to 16, the rows of a tensor-core step, whose columns are all the same row; the warps of a tile divide
// k. The first block collects the logits and routes, the last one stores the sum and the norm. Grid: cluster, T.
//
// A lane's 16 bytes of a row of weights are eight neighbours in k: four columns of each of two steps. Both operands are read in that order,
// so that it does not matter which columns of the matrix a step multiplies. The first of them arrive while the previous kernel ends.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/mailbox.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/norm_row.cuh"
#include "cuda/kernels/route.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = kNormRouteWarps, kTile = kNormRouteExperts;
constexpr int kBlock = 32;  // columns of two tensor-core steps
constexpr int kAhead = 6;   // of them that arrive early

// What a lane multiplies of `kBlock` columns: rows q and q + 8 of the tile.
struct Piece {
  uint4 row, row8;
};

// The rows of a lane in a tile of `size` experts: those that it has, the others are zero.
struct Columns {
  const uint16_t *row, *row8;
  bool has_row, has_row8;
  __device__ __forceinline__ Columns(const NormRouteArgs& args, int tile, int size, int lane) {
    const int expert = tile * size + lane / 4;
    has_row = lane / 4 < size && expert < args.route.E, has_row8 = lane / 4 + 8 < size && expert + 8 < args.route.E;
    row = args.weight + static_cast<int64_t>(expert) * args.norm.H + lane % 4 * 8, row8 = row + static_cast<int64_t>(8) * args.norm.H;
  }
  __device__ __forceinline__ Piece Load(int block) const {
    Piece piece{};
    if (has_row) piece.row = __ldg(reinterpret_cast<const uint4*>(row + block * kBlock));
    if (has_row8) piece.row8 = __ldg(reinterpret_cast<const uint4*>(row8 + block * kBlock));
    return piece;
  }
};

// Two sums, so that no step waits for the one before.
struct Sums {
  float even[4] = {}, odd[4] = {};
  __device__ __forceinline__ void Add(const Piece& w, const uint8_t* x, int block, int lane) {
    const uint4 v = *reinterpret_cast<const uint4*>(x + block * kBlock * 2 + lane % 4 * 16);
    const uint32_t a0[4] = {w.row.x, w.row8.x, w.row.y, w.row8.y}, a1[4] = {w.row.z, w.row8.z, w.row.w, w.row8.w};
    const uint32_t b0[2] = {v.x, v.y}, b1[2] = {v.z, v.w};
    Mma(even, a0, b0);
    Mma(odd, a1, b1);
  }
};
}  // namespace

extern "C" __global__ void __launch_bounds__(32 * kWarps) norm_route(const __grid_constant__ NormRouteArgs args) {
  extern __shared__ __align__(16) uint8_t row[];  // the norm in bf16
  __shared__ Mailbox mailbox;
  __shared__ __align__(16) float sums[kWarps];
  __shared__ float parts[kWarps][kTile];
  __shared__ float logits[32 * BF_VALUES];
  __shared__ float weights[32 * BF_VALUES];
  __shared__ int32_t ids[32 * BF_VALUES];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = blockIdx.y, rank = blockIdx.x, blocks = gridDim.x;
  AllowDependents();
  mailbox.Open(rank == 0 ? 4 * args.route.E : 0);
  // Tiles rank, rank + blocks, ... are this block's, several at a time if there are.
  const int size = min(kTile, (args.route.E + blocks - 1) / blocks), tiles = (args.route.E + size - 1) / size;
  const int mine = (tiles - rank + blocks - 1) / blocks, end = args.norm.H / kBlock;
  const int together = min(max(mine, 1), kWarps), shares = kWarps / together, lead = warp / shares, share = warp % shares;
  const bool works = lead < min(mine, together);
  const Columns first(args, rank + lead * blocks, size, lane);
  Piece early[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; ++j) {
    if (works && share + j * shares < end) early[j] = first.Load(share + j * shares);
  }
  // What the first threads make of the warps' sums: an expert of a tile each.
  const int group = threadIdx.x / kTile, i = threadIdx.x % kTile;
  const auto expert_of = [&](int base) { return (rank + (base + group) * blocks) * size + i; };
  const auto ends = [&](int base) { return base + group < mine && group < together && i < size && expert_of(base) < args.route.E; };
  const float first_bias = args.bias != nullptr && ends(0) ? args.bias[expert_of(0)] : 0.0f;
  const NormRow<kWarps> norm(args.norm, t);
  WaitForPredecessor();
  norm.Run(row, rank == blocks - 1, sums);
  Mailbox::AwaitOthers();
#pragma unroll 1
  for (int base = 0; base < mine; base += together) {
    const int own = base + lead;
    Sums sum;
    if (lead < together && own < mine) {
      const Columns columns(args, rank + own * blocks, size, lane);
      int block = share;
      if (base == 0) {
#pragma unroll
        for (int j = 0; j < kAhead; ++j, block += shares) {
          if (block < end) sum.Add(early[j], row, block, lane);
        }
      }
#pragma unroll 1
      for (; block < end; block += shares) sum.Add(columns.Load(block), row, block, lane);
    }
    if (lane % 4 == 0) parts[warp][lane / 4] = sum.even[0] + sum.odd[0], parts[warp][lane / 4 + 8] = sum.even[2] + sum.odd[2];
    __syncthreads();
    if (ends(base)) {
      float logit = base == 0 || args.bias == nullptr ? first_bias : args.bias[expert_of(base)];
#pragma unroll
      for (int s = 0; s < kWarps; ++s) logit += s < shares ? parts[group * shares + s][i] : 0.0f;
      mailbox.Send(logits + expert_of(base), 0, logit);
    }
    __syncthreads();
  }
  if (rank != 0 || warp != 0) return;
  mailbox.Await();
  RouteRow(args.route, t, logits, weights, ids, lane);
}
