// Linear for 17 to 64 rows of activations on wgmma: the scheme of w4a16_linear_decode_sm80.cu with warpgroups as teams.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_TOKENS    rows of x at most: 16, 32 or 64
//   BF_TEAMS     warpgroups of a CTA          BF_STAGES    units in a warp's ring
//   BF_BUFFERS   items whose sums are on their way at a time, 1 or 2
//
// An item is a panel. Each warp of a warpgroup decodes the row block of its own 16 rows straight into the A registers of wgmma.m64nNk16;
// the slice of x stays in shared memory as [64 columns][token] rows of 128 bytes, swizzled for the B operand, and is read once for the 64
// rows of the panel. While the tensor cores work for one warpgroup the others decode.
//
// Token columns beyond M hold whatever was in shared memory; columns of a product do not mix, and these are thrown away.
#include "cuda/kernels/linear_decode.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kTeams = BF_TEAMS, kThreads = 128 * kTeams, kStages = BF_STAGES;
constexpr int kTokens = BF_TOKENS, kTiles = kTokens / 8;
constexpr int kBlockXBytes = kTokens * 128;  // 64 columns of x

using TeamWalk = Walk<kTeams, 1>;
using TeamCopier = Copier<kTeams, 1, 1>;
using ItemReduction = Reduction<4, kTiles, kTeams, 4 * kTeams, BF_BUFFERS>;
constexpr int kStageBytes = TeamCopier::kStageBytes;
constexpr int kSlabsOfBlock = TeamCopier::kSlabs / kUnitBlocks;
constexpr int kUnitPlanes = kUnitBlocks * kPlanes;
// Planes of a group of columns with one scale; the whole unit where the accumulator is not scaled.
constexpr int kGroupPlanes = kScaleOnAccumulator ? kLayout.group / 16 : kUnitPlanes;

__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void WgmmaWait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// B of 64 columns: K-major, 128-byte swizzle, 1024 bytes from 8 tokens to the next 8 (PTX ISA, "Matrix Descriptor Format").
__device__ __forceinline__ uint64_t Descriptor(uint32_t address) {
  return static_cast<uint64_t>((address & 0x3ffffu) >> 4) | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

#if BF_ACT == 1
#define BF_WGMMA_TYPES "f32.f16.f16"
#else
#define BF_WGMMA_TYPES "f32.bf16.bf16"
#endif
#define BF_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define BF_D16(i) BF_D4(i), BF_D4(i + 4), BF_D4(i + 8), BF_D4(i + 12)

// d (+)= a b: 64 x kTokens, k16. `adds` = 0: d is overwritten.
__device__ __forceinline__ void Wgmma(float (&d)[4 * kTiles], const uint32_t a[4], uint64_t b, int adds) {
#if BF_TOKENS == 16
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %13, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16." BF_WGMMA_TYPES " {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9,%10,%11}, %12, p, 1, 1, 0; }"
      : BF_D4(0), BF_D4(4)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(adds));
#elif BF_TOKENS == 32
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16." BF_WGMMA_TYPES
      " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, p, 1, 1, 0; }"
      : BF_D16(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(adds));
#else
  static_assert(kTokens == 64);
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16." BF_WGMMA_TYPES
      " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},"
      " {%32,%33,%34,%35}, %36, p, 1, 1, 0; }"
      : BF_D16(0), BF_D16(16)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(adds));
#endif
}

// acc += W x^T of one unit; x: the descriptor of the unit's first 64 columns.
__device__ __forceinline__ void MultiplyUnit(const uint8_t* stage, uint64_t x, int lane, float (&acc)[4 * kTiles]) {
  const RowScales scales = LoadRowScales(stage + TeamCopier::kCodeBytes - kLayout.code_bytes(), 0, lane / 4);
  uint32_t a[kUnitPlanes][4];
  float part[4 * kTiles];
#pragma unroll
  for (int block = 0; block < kUnitBlocks; ++block) {
    uint32_t words[kBlockWords];
#pragma unroll
    for (int i = 0; i < kSlabsOfBlock; ++i) {
      const uint4 v = *reinterpret_cast<const uint4*>(stage + (block * kSlabsOfBlock + i) * 512 + lane * 16);
      words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
    }
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) DecodePlane(words, scales, block, plane, a[block * kPlanes + plane]);
  }
#pragma unroll
  for (int first = 0; first < kUnitPlanes; first += kGroupPlanes) {
    WgmmaFence();
#pragma unroll
    for (int step = first; step < first + kGroupPlanes; ++step) {
      // 32 bytes on inside the swizzled rows of 128, then the next 64 columns.
      const uint64_t b = x + static_cast<uint64_t>((step / kPlanes * kBlockXBytes + step % kPlanes * 32) >> 4);
      if constexpr (kScaleOnAccumulator) {
        Wgmma(part, a[step], b, step != first);
      } else {
        Wgmma(acc, a[step], b, 1);
      }
    }
    WgmmaCommit();
    WgmmaWait();
    if constexpr (kScaleOnAccumulator) {
      const int group = first / kGroupPlanes;
      const float low = AccumulatorScale(scales, 0, group), high = AccumulatorScale(scales, 1, group);
#pragma unroll
      for (int i = 0; i < 4 * kTiles; ++i) acc[i] += (i % 4 < 2 ? low : high) * part[i];
    }
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1) w4a16_linear_decode_sm90(const __grid_constant__ LinearDecodeArgs args) {
  // x, rings, partial sums
  extern __shared__ __align__(1024) uint8_t shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, team = warp / 4, block = warp % 4;
  const int rank = static_cast<int>(blockIdx.x) & ((1 << args.splits_log2) - 1);
  uint8_t* rings = shared + args.x_row_bytes * kTokens;
  const uint8_t* ring = rings + warp * kStages * kStageBytes;
  auto* sums = reinterpret_cast<ItemReduction::Shared*>(rings + 4 * kTeams * kStages * kStageBytes);

  ItemReduction reduction(args, sums, rank);
  reduction.Begin();
  AllowDependents();
  TeamWalk walk(args, rank, team);
  TeamCopier copier(args, walk, block, lane);
  int filling = 0;
  const auto copy_next = [&] {
    if (!copier.Done()) {
      copier.CopyWeights(SharedAddress(ring) + filling * kStageBytes);
      copier.Advance();
      filling = filling + 1 == kStages ? 0 : filling + 1;
    }
    CommitCopies();
  };
  for (int s = 0; s < kStages - 1; ++s) copy_next();  // weights, which no kernel writes
  WaitForPredecessor();
  const int chunks = (walk.last - walk.first) * kRowChunks;
#pragma unroll 4
  for (int i = threadIdx.x; i < args.M * chunks; i += kThreads) {
    const int row = i / chunks, chunk = i - row * chunks;
    uint8_t* at = shared + chunk / 8 * kBlockXBytes + row * 128 + (chunk % 8 ^ (row & 7)) * 16;
    *reinterpret_cast<uint4*>(at) = LoadColumns(args, row, walk.first * kUnitK + chunk * 8);
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // wgmma reads what was stored
  __syncthreads();

  const uint64_t x = Descriptor(SharedAddress(shared));
  reduction.WaitBegun();
  int slot = 0, before = 0;
  for (; !walk.Done(); walk.NextItem()) {
    const float factor = reduction.LoadFactor(walk.item);
    float acc[4 * kTiles] = {};
    for (; walk.unit < walk.last; walk.unit += kTeams) {
      WaitCopies<kStages - 2>();
      __syncwarp();
      copy_next();
      const uint8_t* stage = ring + slot * kStageBytes;
      slot = slot + 1 == kStages ? 0 : slot + 1;
      MultiplyUnit(stage, x + static_cast<uint64_t>((walk.unit - walk.first) * (kUnitBlocks * kBlockXBytes >> 4)), lane, acc);
    }

    if (walk.turn > 0) reduction.Finish(walk.turn - 1, before, walk.item + (BF_BUFFERS - 1) * walk.clusters < walk.items);
    reduction.WaitEmpty(walk.turn);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) reduction.Put(walk.turn, team, block, n, acc + 4 * n);
    reduction.Sent(walk.turn, factor);
    before = walk.item;
  }
  if (walk.turn > 0) reduction.Finish(walk.turn - 1, before, false);
  WaitCopies<0>();
}
