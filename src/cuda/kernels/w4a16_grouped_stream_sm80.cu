// Grouped linear for few rows an expert, weights streamed once: gate|up with its activation, or down.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_ROWS         rows of a tile at most: 8 or 16
//   BF_ROW_BLOCKS   16-row blocks of an item: 1, 2 or 4 (a panel)
//   BF_WARPS        warps of a CTA, which is alone on its SM
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
#include "cuda/kernels/block_sort.cuh"
#include "cuda/kernels/dependent_launch.cuh"
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
  BlockSort<kThreads>::Shared sort;
};

__device__ __forceinline__ float4 AsFour(const float (&v)[4]) { return float4{v[0], v[1], v[2], v[3]}; }
__device__ __forceinline__ void AddTo(float (&sum)[4], float4 v) { sum[0] += v.x, sum[1] += v.y, sum[2] += v.z, sum[3] += v.w; }

// Factors and biases of the rows of an item that a lane has.
struct ItemRows {
  float factor[kRowBlocks][2], bias[kRowBlocks][2];
  __device__ __forceinline__ void Load(const GroupedDecodeArgs& args, int expert, int block, int lane) {
    const int64_t first = static_cast<int64_t>(expert) * args.panels * kPanelRows + block * 16 + lane / 4;
    LoadFrom(args.row_scale, first, 1.0f, factor);
    LoadFrom(args.bias, first, 0.0f, bias);
  }

 private:
  static __device__ __forceinline__ void LoadFrom(const float* values, int64_t first, float otherwise, float (&to)[kRowBlocks][2]) {
#pragma unroll
    for (int i = 0; i < 2 * kRowBlocks; ++i) to[i / 2][i % 2] = values == nullptr ? otherwise : __ldg(values + first + i * 8);
  }
};

// Asks for them ahead of their Load.
__device__ __forceinline__ void PrefetchRows(const GroupedDecodeArgs& args, int expert, int block, int lane) {
  const int64_t first = static_cast<int64_t>(expert) * args.panels * kPanelRows + block * 16 + lane % (kRowBlocks * 16);
  if (args.row_scale != nullptr) asm volatile("prefetch.global.L2 [%0];" ::"l"(args.row_scale + first));
  if (args.bias != nullptr) asm volatile("prefetch.global.L2 [%0];" ::"l"(args.bias + first));
}

// An item's sums to memory: those of rows q and q + 8 of each 16-row block for two rows of x a lane and tile.
__device__ __forceinline__ void FinishItem(const GroupedDecodeArgs& args, const TileWork& work, int first_block, const ItemRows& rows,
                                           const float (&acc)[kRowBlocks][kTiles][4], int lane) {
  constexpr int kBlockColumns = IsGated(kKind) ? 8 : 16;  // of out, of a block
  const int column = first_block * kBlockColumns + lane / 4, limit = args.N - column;
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i) {
    const int n = i / 2, t = i % 2, row = n * 8 + lane % 4 * 2 + t;
    if (row >= work.rows) continue;
    const int64_t to = (work.first_row + row) * args.out_stride + column;
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) {
      const float low = fmaf(rows.factor[rb][0], acc[rb][n][t], rows.bias[rb][0]);
      const float high = fmaf(rows.factor[rb][1], acc[rb][n][2 + t], rows.bias[rb][1]);
      const bool has_low = rb * kBlockColumns < limit, has_high = rb * kBlockColumns + 8 < limit;
      if constexpr (kKind == ActivationKind::kNone) {
        float* out = static_cast<float*>(args.out) + to + rb * kBlockColumns;
        if (has_low) out[0] = low;
        if (has_high) out[8] = high;
      } else {
        uint16_t* out = static_cast<uint16_t*>(args.out) + to + rb * kBlockColumns;
        const float other = IsGated(kKind) ? 0.0f : Activate<kKind>(high, 0.0f, args.activation);
        const uint32_t pair = PairFromFloats(Activate<kKind>(low, high, args.activation), other);
        if (has_low) out[0] = static_cast<uint16_t>(pair & 0xffffu);
        if (!IsGated(kKind) && has_high) out[8] = static_cast<uint16_t>(pair >> 16);
      }
    }
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1) w4a16_grouped_stream(const __grid_constant__ GroupedDecodeArgs args) {
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
  const uint32_t tile_items = static_cast<uint32_t>(args.panels) * (4 / kRowBlocks);
  StreamLine line;
  if (args.ids != nullptr) {
    line = BlockSort<kThreads>::Run(args, tile_items, dynamic, shared.tiles, shared.sort);
    line.tokens = args.gather != 0 ? shared.sort.tokens : nullptr;
  } else {
    line = StreamLine(*args.work_count, tile_items);
    for (int i = threadIdx.x; i < line.tile_count; i += kThreads) shared.tiles[i] = args.work[line.first_tile + i];
    __syncthreads();
  }
  line.tiles = shared.tiles;
  line.source = args.source;

  Ring ring(Walk(args, line, warp), dynamic + warp * Ring::kBytes, lane);
  // Without an activation x is what the kernel before has written, and weights may be ahead of it. With one the rows of x are asked for
  // first: they would wait for all the weights that are.
  constexpr bool kWeightsFirst = kKind == ActivationKind::kNone;
  if (kWeightsFirst) ring.Begin();
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
    if (!kWeightsFirst && turn == 0) ring.Begin();
    const Share<kWarps> share(round, warp);
    const int items_before = static_cast<uint32_t>(share.first) / static_cast<uint32_t>(round.steps), begin = items_before * round.steps;
    ItemAt at(line, round.first_item + items_before);
    int step = share.first - begin, left = share.count, row_of_x = 0;
    for (int t = ItemAt(line, round.first_item).tile; t < at.tile; ++t) row_of_x += line.tiles[t].rows;

    float head[kRowBlocks][kTiles][4];
    ItemAt head_at = at;
    bool has_head = false, posted = false;
    if (step > 0 && left > 0) PrefetchRows(args, line.tiles[at.tile].expert, at.item * kRowBlocks, lane);
    rows.Await(turn);
    for (;;) {
      float acc[kRowBlocks][kTiles][4] = {};
      ItemRows item_rows;
      ItemAt ended = at;
      if (left > 0) {
        const TileWork work = line.tiles[at.tile];
        const int count = min(left, round.steps - step);
        const bool begins = step == 0, ends = step + count == round.steps;
        uint32_t x[kTiles];
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          x[n] = rows.Address(row_of_x + min(n * 8 + lane % 8, work.rows - 1)) + lane / 8 * 16 + step * (kColumns * 2);
        }
        if (begins && ends) item_rows.Load(args, work.expert, at.item * kRowBlocks, lane);
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
        left -= count;
        step = 0;
        if (at.Next(line)) row_of_x += work.rows;
        if (!ends) {
#pragma unroll
          for (int i = 0; i < kRowBlocks * kTiles; ++i) shared.slots[warp][i][lane] = AsFour(acc[i / kTiles][i % kTiles]);
          continue;
        }
        if (!begins) {
          has_head = true;
#pragma unroll
          for (int i = 0; i < kRowBlocks * kTiles; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) head[i / kTiles][i % kTiles][j] = acc[i / kTiles][i % kTiles][j];
          }
          continue;
        }
      } else {
        if (!posted) Arrive(SharedAddress(&shared.posted[warp]));
        posted = true;
        if (!has_head) break;
        has_head = false;
        // The sums of the warps before, from the one that began the item on.
        ended = head_at;
        item_rows.Load(args, line.tiles[ended.tile].expert, ended.item * kRowBlocks, lane);
        const Share<kWarps> other(round, lane);
        const bool adds = lane < warp && other.count > 0 && other.first + other.count > begin;
        for (uint32_t rest = __ballot_sync(kAll, adds); rest != 0; rest &= rest - 1) {
          const int w = __ffs(static_cast<int>(rest)) - 1;
          Await(&shared.posted[w], turn);
#pragma unroll
          for (int i = 0; i < kRowBlocks * kTiles; ++i) AddTo(acc[i / kTiles][i % kTiles], shared.slots[w][i][lane]);
        }
#pragma unroll
        for (int i = 0; i < kRowBlocks * kTiles; ++i) AddTo(acc[i / kTiles][i % kTiles], AsFour(head[i / kTiles][i % kTiles]));
      }
      if (args.phase_steps < steps) {
        const int waits = ended.tile * static_cast<int>(line.tile_items) + ended.item - round.first_item;
        float4* to = carried + waits * (kRowBlocks * kTiles * 32) + lane;
        if (round.first_step > 0) {
#pragma unroll
          for (int i = 0; i < kRowBlocks * kTiles; ++i) AddTo(acc[i / kTiles][i % kTiles], to[i * 32]);
        }
        if (round.first_step + round.steps < steps) {
#pragma unroll
          for (int i = 0; i < kRowBlocks * kTiles; ++i) to[i * 32] = AsFour(acc[i / kTiles][i % kTiles]);
          continue;
        }
      }
      FinishItem(args, line.tiles[ended.tile], ended.item * kRowBlocks, item_rows, acc, lane);
    }
  }
  WaitCopies<0>();
}
