// Linear for few rows of activations: y = x . W^T at the speed at which W can be read.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_TOKENS       rows of x at most: 8 or 16
//   BF_ROW_BLOCKS   16-row blocks of an item: 4 (a panel), 2 or 1
//   BF_GROUPS       groups of a CTA           BF_WARPS    warps of a group in a CTA
//   BF_BLOCKS       CTAs an SM
//   BF_STAGES       units in a warp's ring    BF_BUFFERS  items whose sums are on their way at a time, 1 or 2
//   BF_STREAM_X     0: the CTA's slice of x stays in shared memory; 1: x comes through the rings, unit by unit
//
// W is the A operand: rows of W are the rows of the product, tokens its columns. An item is BF_ROW_BLOCKS row blocks of a panel. The CTAs
// of a cluster split K into slices of whole units; a group is BF_WARPS warps in each of them. It works on one item at a time, and its warps
// take the units of the item in turn. Every warp decodes whole units alone from its own ring in shared memory, so that the main loop waits
// for nothing but memory.
//
// End of an item: each warp sends its sums to the CTA that finishes them (through distributed shared memory where that is another one) and
// begins the next item. One warp adds up an item once it has been through the next: nobody stands still while others end. Sums are added
// in the order of the CTAs and warps: every run gives the same bits.
//
// Columns of the tensor-core step beyond M repeat row M - 1 of x and are thrown away.
#include "cuda/kernels/linear_decode.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = BF_WARPS, kGroups = BF_GROUPS, kThreads = 32 * kWarps * kGroups, kStages = BF_STAGES;
constexpr int kRowBlocks = BF_ROW_BLOCKS, kTokens = BF_TOKENS, kTiles = kTokens / 8;
constexpr bool kStreamX = BF_STREAM_X != 0;

using WarpCopier = Copier<kWarps, kGroups, kRowBlocks>;
using WarpWalk = WarpCopier::ItemWalk;
using ItemReduction = Reduction<kRowBlocks, kTiles, kWarps, BF_BUFFERS>;

// Streamed rows of x follow the unit; their 16-byte chunks are addressed by exclusive or.
constexpr int kXOffset = (kStepUnits * WarpCopier::kUnitBytes + 255) / 256 * 256;
constexpr int kXRowBytes = kStepUnits * kUnitK * 2;
constexpr int kStageBytes = kStreamX ? kXOffset + kTokens * kXRowBytes : kStepUnits * WarpCopier::kUnitBytes;
constexpr int kSlabsOfBlock = WarpCopier::kSlabs / kUnitBlocks;

__device__ __forceinline__ void LoadMatrices(uint32_t address, uint32_t v[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
               : "r"(address));
}

// The columns of units first .. last - 1 of every row of x, to rows of x_row_bytes.
__device__ __forceinline__ void KeepX(const LinearDecodeArgs& args, int first, int last, uint8_t* to) {
  const int chunks = (last - first) * kRowChunks, k0 = first * kUnitK;
  if (args.x_aligned == 0 || args.K % 8 != 0) {
#pragma unroll 1
    for (int i = threadIdx.x; i < args.M * chunks; i += kThreads) {
      const int row = i / chunks, chunk = i - row * chunks;
      *reinterpret_cast<uint4*>(to + row * args.x_row_bytes + chunk * 16) = LoadColumns(args, row, k0 + chunk * 8);
    }
    return;
  }
  // All loads of a batch are under way before the first is stored: nothing else can begin before x is there.
  constexpr int kRowsOfBatch = 8, kChunksOfBatch = 2;
#pragma unroll 1
  for (int row0 = 0; row0 < args.M; row0 += kRowsOfBatch) {
#pragma unroll 1
    for (int chunk0 = threadIdx.x; chunk0 < chunks; chunk0 += kChunksOfBatch * kThreads) {
      uint4 v[kRowsOfBatch][kChunksOfBatch];
#pragma unroll
      for (int r = 0; r < kRowsOfBatch; ++r) {
#pragma unroll
        for (int c = 0; c < kChunksOfBatch; ++c) {
          const int row = row0 + r, chunk = chunk0 + c * kThreads, k = k0 + chunk * 8;
          v[r][c] = uint4{0, 0, 0, 0};
          if (row < args.M && chunk < chunks && k < args.K) {
            v[r][c] = __ldg(reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(args.x) + row * args.x_stride + k));
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kRowsOfBatch; ++r) {
#pragma unroll
        for (int c = 0; c < kChunksOfBatch; ++c) {
          const int row = row0 + r, chunk = chunk0 + c * kThreads;
          if (row < args.M && chunk < chunks) *reinterpret_cast<uint4*>(to + row * args.x_row_bytes + chunk * 16) = v[r][c];
        }
      }
    }
  }
}

// The columns of the units of a stage of every row of x.
__device__ __forceinline__ void CopyX(const LinearDecodeArgs& args, int unit, uint32_t to, int lane) {
  constexpr int kChunks = kXRowBytes / 16;
  for (int i = lane; i < args.M * kChunks; i += 32) {
    const int r = i / kChunks, chunk = i % kChunks, k = unit * kUnitK + chunk * 8;
    const uint32_t at = to + (r * kChunks + (chunk ^ (r & 7))) * 16;
    if (args.x_aligned != 0 && k + 8 <= args.K) {
      CopyAsync16(at, static_cast<const uint16_t*>(args.x) + r * args.x_stride + k);
    } else {
      const uint4 v = LoadColumns(args, r, k);
      asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
    }
  }
}

// acc += W x^T of one unit; x_row: where the lane's row of each 8 tokens begins, at its chunk of the first 32 columns.
__device__ __forceinline__ void MultiplyUnit(const uint8_t* stage, const uint32_t (&x_row)[kTiles], int lane,
                                             float (&acc)[kRowBlocks][kTiles][4]) {
  uint32_t b[kUnitBlocks * kPlanes][kTiles][2];
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < kUnitBlocks * kPlanes / 2; ++i) {
      uint32_t v[4];
      LoadMatrices(kStreamX ? x_row[n] ^ (i * 64) : x_row[n] + i * 64, v);
      b[2 * i][n][0] = v[0], b[2 * i][n][1] = v[1], b[2 * i + 1][n][0] = v[2], b[2 * i + 1][n][1] = v[3];
    }
  }
  RowScales scales[kRowBlocks];
#pragma unroll
  for (int rb = 0; rb < kRowBlocks; ++rb) scales[rb] = LoadRowScales(stage + WarpCopier::kCodeBytes - kLayout.code_bytes(), rb, lane / 4);
  float part[kRowBlocks][kTiles][4];
#pragma unroll
  for (int block = 0; block < kUnitBlocks; ++block) {
    uint32_t words[kRowBlocks][kBlockWords];
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
      for (int i = 0; i < kSlabsOfBlock; ++i) {
        const uint4 v = *reinterpret_cast<const uint4*>(stage + ((block * kSlabsOfBlock + i) * kRowBlocks + rb) * 512 + lane * 16);
        words[rb][4 * i] = v.x, words[rb][4 * i + 1] = v.y, words[rb][4 * i + 2] = v.z, words[rb][4 * i + 3] = v.w;
      }
    }
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
      const int step = block * kPlanes + plane;
      // Row block by row block: a step does not wait for the one before on the same sums.
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
        uint32_t a[4];
        DecodePlane(words[rb], scales[rb], block, plane, a);
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          if constexpr (kScaleOnAccumulator) {
            if (step * 16 % kLayout.group == 0) part[rb][n][0] = part[rb][n][1] = part[rb][n][2] = part[rb][n][3] = 0;
            Mma(part[rb][n], a, b[step][n]);
          } else {
            Mma(acc[rb][n], a, b[step][n]);
          }
        }
      }
      if constexpr (kScaleOnAccumulator) {
        if ((step + 1) * 16 % kLayout.group == 0) {
          const int group = step * 16 / kLayout.group;
#pragma unroll
          for (int rb = 0; rb < kRowBlocks; ++rb) {
            const float low = AccumulatorScale(scales[rb], 0, group), high = AccumulatorScale(scales[rb], 1, group);
#pragma unroll
            for (int n = 0; n < kTiles; ++n) {
#pragma unroll
              for (int i = 0; i < 4; ++i) acc[rb][n][i] = fmaf(i < 2 ? low : high, part[rb][n][i], acc[rb][n][i]);
            }
          }
        }
      }
    }
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BF_BLOCKS) w4a16_linear_decode(const __grid_constant__ LinearDecodeArgs args) {
  // rings, partial sums, x
  extern __shared__ __align__(256) uint8_t shared[];
  auto* sums = reinterpret_cast<ItemReduction::Shared*>(shared + kGroups * kWarps * kStages * kStageBytes);
  uint8_t* x_slice = reinterpret_cast<uint8_t*>(sums + kGroups);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = warp / kWarps;
  const int rank = static_cast<int>(blockIdx.x) & ((1 << args.splits_log2) - 1);
  const uint8_t* ring = shared + warp * kStages * kStageBytes;

  ItemReduction reduction(args, sums + group, rank, static_cast<int>(threadIdx.x) % (32 * kWarps));
  reduction.Begin();
  AllowDependents();
  WarpWalk walk(args, rank, group, warp % kWarps);
  WarpCopier copier(args, walk, lane);
  RingPlace<kStages, kStageBytes> filling, reading;
  const auto copy_next = [&] {
    if (!copier.Done()) {
      const uint32_t stage = SharedAddress(ring) + filling.offset;
      copier.CopyWeights(stage);
      if constexpr (kStreamX) CopyX(args, copier.unit(), stage + kXOffset, lane);
      copier.Advance();
      filling.Advance();
    }
    CommitCopies();
  };
  if constexpr (kStreamX) {
    WaitForPredecessor();
    for (int s = 0; s < kStages - 1; ++s) copy_next();
  } else {
    for (int s = 0; s < kStages - 1; ++s) copy_next();  // weights, which no kernel writes
    WaitForPredecessor();
    KeepX(args, walk.first, walk.last, x_slice);
    __syncthreads();
  }

  reduction.WaitBegun();
  int before = 0;
  for (; !walk.Done(); walk.NextItem()) {
    const float factor = reduction.LoadFactor(walk.item);
    float acc[kRowBlocks][kTiles][4] = {};
    for (; walk.unit < walk.last; walk.unit += kWarps * kStepUnits) {
      WaitCopies<kStages - 2>();
      __syncwarp();
      copy_next();
      const uint8_t* stage = ring + reading.offset;
      reading.Advance();
      uint32_t x_row[kTiles];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int row = min(n * 8 + lane % 8, args.M - 1);
        if constexpr (kStreamX) {
          x_row[n] = SharedAddress(stage) + kXOffset + row * kXRowBytes + (lane / 8 ^ (row & 7)) * 16;
        } else {
          x_row[n] = SharedAddress(x_slice) + row * args.x_row_bytes + (walk.unit - walk.first) * kUnitK * 2 + lane / 8 * 16;
        }
      }
#pragma unroll 1
      for (int u = 0; u < kStepUnits && walk.unit + u < walk.last; ++u) {
        MultiplyUnit(stage + u * WarpCopier::kUnitBytes, x_row, lane, acc);
#pragma unroll
        for (int n = 0; n < kTiles; ++n) x_row[n] += kUnitK * 2;
      }
    }

    if (walk.turn > 0) reduction.Finish(walk.turn - 1, before, false, walk.item + (BF_BUFFERS - 1) * walk.groups < walk.items);
    reduction.WaitEmpty(walk.turn);
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) reduction.Put(walk.turn, rb, n, acc[rb][n]);
    }
    reduction.Sent(walk.turn, factor);
    before = walk.item;
  }
  if (walk.turn > 0) reduction.Finish(walk.turn - 1, before, true, false);
  WaitCopies<0>();
}
