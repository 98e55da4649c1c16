// The step between attention and experts of a few rows: x + delta, its norm in bf16, the router's matrix and its rule, in one launch.
//
//   BF_VALUES   logits that a lane of the routing warp holds (route.cuh)
//
// A cluster has one row. Each block norms it for itself, which costs less than waiting for another block to send it. The experts are dealt
// out to the blocks in tiles of 16, the rows of a tensor-core step, whose columns are all the same row; the warps of a tile divide k. The
// first block collects the logits and routes, the last one stores the sum and the norm. Grid: cluster, T.
//
// A lane's 16 bytes of a row of weights are eight neighbours in k: four columns of each of two steps. Both operands are read in that order,
// so that it does not matter which columns of the matrix a step multiplies. The first of them arrive while the previous kernel ends.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/mailbox.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/norm_rows.cuh"
#include "cuda/kernels/route.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = kNormRouteWarps, kTile = kNormRouteExperts;
constexpr int kBlock = 32;  // columns of two tensor-core steps
constexpr int kAhead = 4;   // of them that arrive early

// What a lane multiplies of `kBlock` columns: rows q and q + 8 of the tile.
struct Piece {
  uint4 row, row8;
};

// The rows of a lane in a tile of experts.
struct Columns {
  const uint16_t *row, *row8;
  int end;  // blocks
  __device__ __forceinline__ Columns(const NormRouteArgs& args, int tile, int lane) : end(args.norm.H / kBlock) {
    const int expert = tile * kTile + lane / 4;
    row = args.weight + static_cast<int64_t>(min(expert, args.route.E - 1)) * args.norm.H + lane % 4 * 8;
    row8 = args.weight + static_cast<int64_t>(min(expert + 8, args.route.E - 1)) * args.norm.H + lane % 4 * 8;
  }
  __device__ __forceinline__ Piece Load(int block) const {
    return {__ldg(reinterpret_cast<const uint4*>(row + block * kBlock)), __ldg(reinterpret_cast<const uint4*>(row8 + block * kBlock))};
  }
};

__device__ __forceinline__ void Multiply(float (&sum)[4], const Piece& w, const uint8_t* x, int block, int lane) {
  const uint4 v = *reinterpret_cast<const uint4*>(x + block * kBlock * 2 + lane % 4 * 16);
  const uint32_t a0[4] = {w.row.x, w.row8.x, w.row.y, w.row8.y}, a1[4] = {w.row.z, w.row8.z, w.row.w, w.row8.w};
  const uint32_t b0[2] = {v.x, v.y}, b1[2] = {v.z, v.w};
  Mma(sum, a0, b0);
  Mma(sum, a1, b1);
}
}  // namespace

extern "C" __global__ void __launch_bounds__(32 * kWarps) norm_route(const __grid_constant__ NormRouteArgs args) {
  extern __shared__ __align__(16) uint8_t row[];  // the norm in bf16
  __shared__ Mailbox mailbox;
  __shared__ float sums[kWarps], parts[kWarps][kTile];
  __shared__ float logits[32 * BF_VALUES];
  __shared__ float weights[32 * BF_VALUES];
  __shared__ int32_t ids[32 * BF_VALUES];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = blockIdx.y, rank = blockIdx.x, blocks = gridDim.x;
  AllowDependents();
  mailbox.Open(rank == 0 ? 4 * args.route.E : 0);
  // Tiles rank, rank + blocks, ... are this block's, several at a time if there are.
  const int tiles = (args.route.E + kTile - 1) / kTile, mine = (tiles - rank + blocks - 1) / blocks;
  const int together = min(max(mine, 1), kWarps), shares = kWarps / together, lead = warp / shares, share = warp % shares;
  const Columns first(args, min(rank + lead * blocks, tiles - 1), lane);
  const bool works = lead < min(mine, together);
  Piece early[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; ++j) {
    if (works && share + j * shares < first.end) early[j] = first.Load(share + j * shares);
  }
  NormRowsArgs norm = args.norm;
  const int64_t at = static_cast<int64_t>(t) * norm.H;
  norm.M = 1, norm.x += at, norm.sum += at, norm.y = static_cast<uint16_t*>(norm.y) + at;
  if (norm.delta != nullptr) norm.delta += at;
  const NormRows<kWarps> rows(norm, warp, lane);
  WaitForPredecessor();
  rows.Run(row, 0, rank == blocks - 1, sums);
  Mailbox::AwaitOthers();
#pragma unroll 1
  for (int base = 0; base < mine; base += together) {
    const int own = base + lead, tile = rank + own * blocks;
    float sum[4] = {};
    if (lead < together && own < mine) {
      const Columns columns(args, tile, lane);
      int block = share;
      if (base == 0) {
#pragma unroll
        for (int j = 0; j < kAhead; ++j, block += shares) {
          if (block < columns.end) Multiply(sum, early[j], row, block, lane);
        }
      }
#pragma unroll 1
      for (; block < columns.end; block += shares) Multiply(sum, columns.Load(block), row, block, lane);
    }
    if (lane % 4 == 0) parts[warp][lane / 4] = sum[0], parts[warp][lane / 4 + 8] = sum[2];
    __syncthreads();
    if (threadIdx.x < together * kTile) {
      const int i = threadIdx.x;
      const int group = i / kTile, expert = (rank + (base + group) * blocks) * kTile + i % kTile;
      float logit = 0;
#pragma unroll 4
      for (int s = 0; s < shares; ++s) logit += parts[group * shares + s][i % kTile];
      if (base + group < mine && expert < args.route.E) {
        mailbox.Send(logits + expert, 0, logit + (args.bias == nullptr ? 0.0f : args.bias[expert]));
      }
    }
    __syncthreads();
  }
  if (rank != 0 || warp != 0) return;
  mailbox.Await();
  RouteRow(args.route, t, logits, weights, ids, lane);
}
