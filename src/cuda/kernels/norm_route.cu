// The step between attention and experts of a few rows: x + delta, its norm in bf16, the router's matrix and its rule, in one launch.
//
//   BF_VALUES   logits that a lane of the routing warp holds (route.cuh)
//
// A cluster has one row. Each block norms it for itself, which costs less than waiting for another block to send it. The experts are dealt
// out to the blocks in tiles of up to 16, the rows of a tensor-core step, whose columns are all the same row; the warps of a block divide
// k. The first block collects the logits and routes, the last one stores the sum and the norm. Grid: cluster, T.
//
// A lane's 16 bytes of a row of weights are eight neighbours in k: four columns of each of two steps. Both operands are read in that order,
// so that it does not matter which columns of the matrix a step multiplies. The first of them arrive in shared memory while the previous
// kernel ends, each where only its lane looks.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/mailbox.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/norm_row.cuh"
#include "cuda/kernels/parameters.cuh"
#include "cuda/kernels/route.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = kNormRouteWarps, kTile = kNormRouteExperts;
constexpr bool kCounts = BF_VALUES <= 8;   // of more experts all pairs are too many
constexpr int kBlock = kNormRouteColumns;  // columns of two tensor-core steps

// What a lane multiplies of `kBlock` columns: rows q and q + 8 of the tile.
struct Piece {
  uint4 row{}, row8{};
};

// The rows of a lane in a tile: those that it has, the others are zero.
struct Columns {
  const uint16_t *row, *row8;
  bool has_row, has_row8;
  __device__ __forceinline__ Columns(const NormRouteArgs& args, int tile, int lane) {
    const int expert = tile * args.tile + lane / 4;
    has_row = lane / 4 < args.tile && expert < args.route.E, has_row8 = lane / 4 + 8 < args.tile && expert + 8 < args.route.E;
    row = args.weight + (has_row ? static_cast<int64_t>(expert) * args.norm.H : 0) + lane % 4 * 8;
    row8 = row + (has_row8 ? static_cast<int64_t>(8) * args.norm.H : 0);
  }
  __device__ __forceinline__ void Begin(uint32_t piece, int block) const {
    CopyAsync16Zeroed(piece, row + block * kBlock, has_row ? 16 : 0);
    CopyAsync16Zeroed(piece + 512 * kWarps, row8 + block * kBlock, has_row8 ? 16 : 0);
  }
  __device__ __forceinline__ Piece Load(int block) const {
    Piece piece;
    if (has_row) piece.row = *reinterpret_cast<const uint4*>(row + block * kBlock);
    if (has_row8) piece.row8 = *reinterpret_cast<const uint4*>(row8 + block * kBlock);
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
  FetchParameters(args);
  extern __shared__ __align__(16) uint8_t pieces[];  // then the norm in bf16
  __shared__ Mailbox mailbox;
  __shared__ __align__(16) float sums[kWarps];
  __shared__ float parts[kWarps][kTile];
  __shared__ __align__(16) float logits[32 * BF_VALUES];  // or their keys
  __shared__ float weights[32 * BF_VALUES];
  __shared__ int32_t ids[32 * BF_VALUES];
  __shared__ uint2 slots[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = blockIdx.y, rank = blockIdx.x, blocks = gridDim.x;
  AllowDependents();
  mailbox.Open(rank == 0 ? 4 * args.route.E : 0);
  // Tiles rank, rank + blocks, ... are this block's; warp w has every kWarps-th block of columns.
  const int end = args.norm.H / kBlock;
  const Columns first(args, rank, lane);
  const int early = min(end, args.ahead * kWarps);
  uint8_t *mine = pieces + threadIdx.x * 16, *row = pieces + args.ahead * kNormRoutePieces;
#pragma unroll 1
  for (int block = warp; block < early; block += kWarps) first.Begin(SharedAddress(mine) + block / kWarps * kNormRoutePieces, block);
  CommitCopies();
  // Each of the first threads ends an expert of the tile.
  const auto ended_by = [&](int tile) { return static_cast<int>(threadIdx.x) < args.tile ? tile * args.tile + threadIdx.x : args.route.E; };
  const float bias = args.bias != nullptr && ended_by(rank) < args.route.E ? args.bias[ended_by(rank)] : 0.0f;
  const bool counts = kCounts && IsPlainSoftmax(args.route);
  if (rank == 0) {
    for (int i = args.route.E + threadIdx.x; i < 32 * BF_VALUES; i += 32 * kWarps) logits[i] = __uint_as_float(kTaken);
  }
  const NormRow<kWarps> norm(args.norm, t);
  WaitForPredecessor();
  norm.Run(row, rank == blocks - 1, sums);
  Mailbox::AwaitOthers();
#pragma unroll 1
  for (int tile = rank; tile * args.tile < args.route.E; tile += blocks) {
    Sums sum;
    int block = warp;
    if (tile == rank) {
      WaitCopies<0>();
      for (const uint8_t* piece = mine; block < early; block += kWarps, piece += kNormRoutePieces) {
        sum.Add({*reinterpret_cast<const uint4*>(piece), *reinterpret_cast<const uint4*>(piece + 512 * kWarps)}, row, block, lane);
      }
    }
    const Columns columns(args, tile, lane);
    for (; block < end; block += kWarps) sum.Add(columns.Load(block), row, block, lane);
    if (lane % 4 == 0) parts[warp][lane / 4] = sum.even[0] + sum.odd[0], parts[warp][lane / 4 + 8] = sum.even[2] + sum.odd[2];
    __syncthreads();
    if (const int expert = ended_by(tile); expert < args.route.E) {
      float logit = tile == rank || args.bias == nullptr ? bias : args.bias[expert];
#pragma unroll
      for (int s = 0; s < kWarps; ++s) logit += parts[s][threadIdx.x];
      mailbox.Send(logits + expert, 0, counts ? __uint_as_float(Key(logit)) : logit);
    }
    __syncthreads();
  }
  if (rank != 0) return;
  mailbox.Await();
  if (counts) {
    RouteRowByCounting(args.route, t, reinterpret_cast<const uint32_t*>(logits), slots);
  } else if (warp == 0) {
    RouteRow(args.route, t, logits, weights, ids, lane);
  }
}
