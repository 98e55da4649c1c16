// Grouped linear for few rows an expert, weights streamed once: gate|up with its activation, or down.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_ROWS         rows of a tile at most: 8 or 16
//   BF_ROW_BLOCKS   16-row blocks of an item: 1, 2 or 4 (a panel)
//   BF_WARPS        warps of a CTA            BF_BLOCKS   CTAs an SM
//   BF_STAGES       steps that a warp has in its ring
//   BF_ACTIVATION   ActivationKind: 0..5 writes h in 16 bits (gated kinds: rows q and q + 8 of a thread are gate and up of one column),
//                   -1 writes f32
//
// All work lies in one line of items, [tile of one expert's rows][BF_ROW_BLOCKS blocks of 16 packed rows], and each item is a line of steps
// along K. A CTA takes a contiguous part of the items, its warps contiguous parts of their steps: a warp streams along K without a break,
// through a ring of its own. An item that one warp has to itself is stored by that warp; of others each warp posts its sums in a slot, and
// the warp with the last step adds them up in the order of K.
//
// The rows of x of the CTA's tiles are kept in shared memory. If not all of them fit, the CTA works in rounds, each of as many tiles as
// fit; where not even one tile's do, each round goes through K in phases and sums wait in shared memory from phase to phase. The rings run
// on from round to round. The result depends on nothing but the routing.
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/direct_work.cuh"
#include "cuda/kernels/grouped_rows.cuh"
#include "cuda/kernels/grouped_walk.cuh"

namespace {
using namespace billfish::cuda;

constexpr uint32_t kAll = 0xffffffffu;
constexpr int kRows = BF_ROWS, kTiles = kRows / 8, kWarps = BF_WARPS, kThreads = 32 * kWarps;
constexpr int kRowBlocks = BF_ROW_BLOCKS, kStages = BF_STAGES;
constexpr ActivationKind kKind = static_cast<ActivationKind>(BF_ACTIVATION);

using Walk = RoundWalk<kRowBlocks, kWarps>;
using Ring = WarpRing<kRowBlocks, kStages, Walk>;
constexpr int kColumns = Ring::Step::kColumns;

struct Shared {
  float4 slots[kWarps][kRowBlocks * kTiles][32];  ///< sums of a warp whose last item another one ends
  uint64_t posted[kWarps];
  uint64_t rows;
  TileWork tiles[kMostStreamTiles];  ///< of this CTA
  DirectWork direct;
};

__device__ __forceinline__ float4 AsFour(const float (&v)[4]) { return float4{v[0], v[1], v[2], v[3]}; }
__device__ __forceinline__ void AddTo(float (&sum)[4], float4 v) { sum[0] += v.x, sum[1] += v.y, sum[2] += v.z, sum[3] += v.w; }

__device__ __forceinline__ void StoreColumn(const GroupedDecodeArgs& args, int row, int column, float value) {
  if (column >= args.N) return;
  const int64_t i = row * args.out_stride + column;
  if constexpr (kKind == ActivationKind::kNone) {
    static_cast<float*>(args.out)[i] = value;
  } else {
    static_cast<uint16_t*>(args.out)[i] = static_cast<uint16_t>(PairFromFloats(value, 0.0f) & 0xffffu);
  }
}

// Sums of rows q and q + 8 of 16-row block `block` for one row of x.
__device__ __forceinline__ void StoreSums(const GroupedDecodeArgs& args, int block, int q, int row, float low, float high) {
  if constexpr (IsGated(kKind)) {
    StoreColumn(args, row, block * 8 + q, Activate<kKind>(low, high, args.activation));
  } else if constexpr (kKind != ActivationKind::kNone) {
    StoreColumn(args, row, block * 16 + q, Activate<kKind>(low, 0.0f, args.activation));
    StoreColumn(args, row, block * 16 + 8 + q, Activate<kKind>(high, 0.0f, args.activation));
  } else {
    StoreColumn(args, row, block * 16 + q, low);
    StoreColumn(args, row, block * 16 + 8 + q, high);
  }
}

// Factors and biases of the rows of an item that a lane has.
struct ItemRows {
  float factor[kRowBlocks][2], bias[kRowBlocks][2];
  __device__ __forceinline__ void Load(const GroupedDecodeArgs& args, int expert, int block, int lane) {
    const int64_t first = static_cast<int64_t>(expert) * args.panels * kPanelRows + block * 16 + lane / 4;
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = first + rb * 16 + half * 8;
        factor[rb][half] = args.row_scale == nullptr ? 1.0f : __ldg(args.row_scale + row);
        bias[rb][half] = args.bias == nullptr ? 0.0f : __ldg(args.bias + row);
      }
    }
  }
};

// Asks for them ahead of their Load.
__device__ __forceinline__ void PrefetchRows(const GroupedDecodeArgs& args, int expert, int block, int lane) {
  const int64_t first = static_cast<int64_t>(expert) * args.panels * kPanelRows + block * 16 + lane % (kRowBlocks * 16);
  if (args.row_scale != nullptr) asm volatile("prefetch.global.L2 [%0];" ::"l"(args.row_scale + first));
  if (args.bias != nullptr) asm volatile("prefetch.global.L2 [%0];" ::"l"(args.bias + first));
}

// An item's sums to memory, and what follows from them where this call adds the experts up, too.
__device__ __forceinline__ void FinishItem(const GroupedDecodeArgs& args, const Shared& shared, const TileWork& work, int first_block,
                                           const ItemRows& rows, const float (&acc)[kRowBlocks][kTiles][4], int lane) {
#pragma unroll
  for (int rb = 0; rb < kRowBlocks; ++rb) {
    const int block = first_block + rb;
    const float f0 = rows.factor[rb][0], f1 = rows.factor[rb][1], b0 = rows.bias[rb][0], b1 = rows.bias[rb][1];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int column = n * 8 + lane % 4 * 2, row = work.first_row + column;
      const float* v = acc[rb][n];
      if (column < work.rows) StoreSums(args, block, lane / 4, row, fmaf(f0, v[0], b0), fmaf(f1, v[2], b1));
      if (column + 1 < work.rows) StoreSums(args, block, lane / 4, row + 1, fmaf(f0, v[1], b0), fmaf(f1, v[3], b1));
    }
  }
  if constexpr (kKind == ActivationKind::kNone) {
    if (args.arrivals == nullptr) return;
#pragma unroll 1
    for (int block = first_block; block < first_block + kRowBlocks; ++block) {
      if (IsLastTile(args.arrivals + block, shared.direct.tiles, lane)) Combine(args, shared.direct, block * 16, lane);
    }
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BF_BLOCKS) w4a16_grouped_stream(const __grid_constant__ GroupedDecodeArgs args) {
  extern __shared__ __align__(128) uint8_t dynamic[];  // rings, rows of x
  __shared__ Shared shared;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  if (args.early_weights != 0) AllowDependents();
  TileRowsOfX<kThreads> rows(args, &shared.rows, dynamic + kWarps * Ring::kBytes);
  if (lane == 0) InitBarrier(&shared.posted[warp], 32);
  rows.Begin();
  if (args.early_weights == 0) {
    WaitForPredecessor();
    AllowDependents();
  }
  if constexpr (kKind != ActivationKind::kNone) {
    if (blockIdx.x == 0) {
      for (int i = threadIdx.x; i < args.arrival_count; i += kThreads) args.arrivals[i] = 0;
    }
  }
  const uint32_t tile_items = static_cast<uint32_t>(args.panels) * (4 / kRowBlocks);
  StreamLine line;
  if (args.ids != nullptr) {
    if (warp == 0) SortDirect(args, lane, shared.direct);
    __syncthreads();
    line = StreamLine(shared.direct.tiles, tile_items);
    line.tiles = shared.direct.work + line.first_tile;
    line.source = shared.direct.source;
  } else {
    line = StreamLine(*args.work_count, tile_items);
    for (int i = threadIdx.x; i < line.tile_count; i += kThreads) shared.tiles[i] = args.work[line.first_tile + i];
    __syncthreads();
    line.tiles = shared.tiles;
    line.source = args.source;
  }

  Ring ring(Walk(args, line, warp), dynamic + warp * Ring::kBytes, lane);
  ring.Begin();
  if (args.early_weights != 0) WaitForPredecessor();

  const int steps = StepsOfItem<kRowBlocks>(args);
  auto* const carried = reinterpret_cast<float4*>(dynamic + kWarps * Ring::kBytes + args.x_rows * args.x_row_bytes);
  Round round;
  round.end_item = line.first_item;
  for (int turn = 0;; ++turn) {
    if (!round.NextPhase(steps)) {
      if (round.end_item >= line.end_item) break;
      round = Round::At<kRowBlocks>(args, line, round.end_item);
    }
    if (turn > 0) __syncthreads();  // the rows and slots before have been read
    rows.Copy<kColumns>(line, round);
    const Share<kWarps> share(round, warp);
    const int items_before = static_cast<uint32_t>(share.first) / static_cast<uint32_t>(round.steps), begin = items_before * round.steps;
    ItemAt at(line, round.first_item + items_before);
    int step = share.first - begin, left = share.count, row_of_x = 0;
    for (int t = ItemAt(line, round.first_item).tile; t < at.tile; ++t) row_of_x += line.tiles[t].rows;

    const auto end_item = [&](const ItemAt& ended, const ItemRows& item_rows, float(&acc)[kRowBlocks][kTiles][4]) {
      if (args.phase_steps < steps) {
        float4* to =
            carried + (ended.tile * static_cast<int>(tile_items) + ended.item - round.first_item) * (kRowBlocks * kTiles * 32) + lane;
        if (round.first_step > 0) {
#pragma unroll
          for (int i = 0; i < kRowBlocks * kTiles; ++i) AddTo(acc[i / kTiles][i % kTiles], to[i * 32]);
        }
        if (round.first_step + round.steps < steps) {
#pragma unroll
          for (int i = 0; i < kRowBlocks * kTiles; ++i) to[i * 32] = AsFour(acc[i / kTiles][i % kTiles]);
          return;
        }
      }
      FinishItem(args, shared, line.tiles[ended.tile], ended.item * kRowBlocks, item_rows, acc, lane);
    };

    float head[kRowBlocks][kTiles][4];
    ItemAt head_at = at;
    bool has_head = false;
    if (step > 0 && left > 0) PrefetchRows(args, line.tiles[at.tile].expert, at.item * kRowBlocks, lane);
    rows.Await(turn);
    while (left > 0) {
      const TileWork work = line.tiles[at.tile];
      const int count = min(left, round.steps - step);
      const bool begins = step == 0, ends = step + count == round.steps;
      uint32_t x[kTiles];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        x[n] = rows.Address(row_of_x + min(n * 8 + lane % 8, work.rows - 1)) + lane / 8 * 16 + step * (kColumns * 2);
      }
      ItemRows item_rows;
      if (begins && ends) item_rows.Load(args, work.expert, at.item * kRowBlocks, lane);
      float acc[kRowBlocks][kTiles][4] = {};
#pragma unroll 1
      for (const uint32_t end = x[0] + count * (kColumns * 2); x[0] != end;) {
        const Ring::Step held = ring.Next();
        if constexpr (kTiles == 2) {
          if (work.rows <= 8) {
            MultiplyStep<1>(held, x, acc);
          } else {
            MultiplyStep<2>(held, x, acc);
          }
        } else {
          MultiplyStep<kTiles>(held, x, acc);
        }
#pragma unroll
        for (int n = 0; n < kTiles; ++n) x[n] += kColumns * 2;
      }
      if (begins && ends) {
        end_item(at, item_rows, acc);
      } else if (ends) {
        has_head = true;
#pragma unroll
        for (int i = 0; i < kRowBlocks * kTiles; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) head[i / kTiles][i % kTiles][j] = acc[i / kTiles][i % kTiles][j];
        }
      } else {
#pragma unroll
        for (int i = 0; i < kRowBlocks * kTiles; ++i) shared.slots[warp][i][lane] = AsFour(acc[i / kTiles][i % kTiles]);
      }
      left -= count;
      step = 0;
      if (at.Next(line)) row_of_x += work.rows;
    }
    Arrive(SharedAddress(&shared.posted[warp]));

    if (has_head) {
      // The sums of the warps before, from the one that began the item on.
      ItemRows item_rows;
      item_rows.Load(args, line.tiles[head_at.tile].expert, head_at.item * kRowBlocks, lane);
      float acc[kRowBlocks][kTiles][4] = {};
      const Share<kWarps> other(round, lane);
      const bool adds = lane < warp && other.count > 0 && other.first + other.count > begin;
      if (adds) Await(&shared.posted[lane], turn);
      __syncwarp();
      for (uint32_t rest = __ballot_sync(kAll, adds); rest != 0; rest &= rest - 1) {
        const int w = __ffs(static_cast<int>(rest)) - 1;
#pragma unroll
        for (int i = 0; i < kRowBlocks * kTiles; ++i) AddTo(acc[i / kTiles][i % kTiles], shared.slots[w][i][lane]);
      }
#pragma unroll
      for (int i = 0; i < kRowBlocks * kTiles; ++i) AddTo(acc[i / kTiles][i % kTiles], AsFour(head[i / kTiles][i % kTiles]));
      end_item(head_at, item_rows, acc);
    }
  }

  if constexpr (kKind == ActivationKind::kNone) {
    if (args.arrivals != nullptr && shared.direct.tiles == 0) {  // every slot is skipped
      for (int block = static_cast<int>(blockIdx.x) * kWarps + warp; block < args.panels * 4; block += gridDim.x * kWarps) {
        Combine(args, shared.direct, block * 16, lane);
      }
    }
  }
  WaitCopies<0>();
}
