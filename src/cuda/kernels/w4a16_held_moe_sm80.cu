// The expert block of one token in one launch, where an SM holds its whole share of the weights: h[j] = act(W_gate_up[e_j] x + b[e_j]) for
// each slot j, then y = (addend) + sum over j of weights[j] (W_down[e_j] h[j] + b[e_j]).
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the TileLayout of both weights    BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_WARPS        warps of a CTA; an SM has one CTA
//   BF_ACTIVATION   ActivationKind, 0..5
//
// Such a call is over before a ring would have gone round: each piece has a place of its own in shared memory, and nothing has to wait for
// room. As soon as the ids are there each warp asks for all of gate|up that it will multiply, then for a piece of down with each block of
// gate|up that has come: all is under way early, but what h needs comes first.
//
//   gate|up   a CTA has a stretch of the blocks of 16 packed rows of all slots; its warps divide K
//   down      a CTA has one block of 16 rows of y or none; its warps divide the units of all slots, so that y is complete in the CTA
//
// What CTAs tell each other is h alone, in words that say which launch they are from: whoever needs one reads it until it does, and no
// barrier is waited for. CTAs need not run at a time for that: who has waited for long computes what is missing. What is done twice gives
// the same bits. The order of every sum depends on the shapes alone.
#define BF_SHIFTS
#include "cuda/held_moe_args.h"
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/moe_output.cuh"
#include "cuda/kernels/parameters.cuh"
#include "cuda/kernels/weight.cuh"

namespace {
using namespace billfish::cuda;

constexpr uint32_t kAll = 0xffffffffu;
constexpr int kWarps = BF_WARPS, kThreads = 32 * kWarps;
constexpr ActivationKind kKind = static_cast<ActivationKind>(BF_ACTIVATION);
constexpr int kFeatures = IsGated(kKind) ? 8 : 16;  // of h in a block of gate|up
constexpr int kFirstDown = kMostHeldBlocks;         // lanes from here on know where a unit of down is, those before a block of gate|up
constexpr int kPatience = 200;                      // polls, of more than half a microsecond each
static_assert(kThreads == 64 * kMostHeldBlocks && kThreads == 16 * kMostHeldSlots && kFirstDown + kMostHeldUnits == 32);

// A piece is 16 rows of a unit: [slab][lane] 16 bytes of codes, then the scales and the zero points of the rows.
constexpr int kSlabs = kLayout.code_bytes() / (kTileThreads * 16);
constexpr int kScaleChunks = 8 * RowScales::kScaleBytes / 16, kZeroChunks = 8 * RowScales::kZeroBytes / 16,
              kChunks = kScaleChunks + kZeroChunks;
constexpr int kCodeBytes = kSlabs * 512, kPieceBytes = kCodeBytes + kChunks * 16;
constexpr int kRowBytes = kUnitK * 2;  // of x or h in a unit

struct Shared {
  float gate_up[kWarps][kMostHeldBlocks * 16];  // each warp's sums
  float down[kWarps][16];
  float weight[kMostHeldSlots];
  float factor[kMostHeldSlots][16], bias[kMostHeldSlots][16];  // of the CTA's rows of down, by slot; the bias weighted
};

// Where the units of a block of 16 rows begin, as a multiple of 16, and which block of the panel it is. 0: nowhere.
using BlockPlace = uint64_t;

__device__ __forceinline__ BlockPlace PlaceOf(const HeldMatrix& matrix, int expert, int block, int unit) {
  const uint8_t* units = matrix.weight + expert * matrix.expert_bytes + (block / 4 * matrix.units + unit) * kLayout.unit_bytes();
  return reinterpret_cast<BlockPlace>(units) | static_cast<uint32_t>(block % 4);
}

// Ask for `units` pieces in a row, to lie in a row: for their scales and zero points by one lane, for their codes by all lanes.
__device__ __forceinline__ void CopyScales(BlockPlace place, int units, uint32_t to, uint64_t policy) {
  const int block = static_cast<int>(place) & 3;
  const uint8_t* from = reinterpret_cast<const uint8_t*>(place & ~BlockPlace{3}) + kLayout.code_bytes();
  to += kCodeBytes;
#pragma unroll 1
  for (; units > 0; --units, from += kLayout.unit_bytes(), to += kPieceBytes) {
#pragma unroll
    for (int i = 0; i < kScaleChunks; ++i) CopyAsync16(to + i * 16, from + (block * kScaleChunks + i) * 16, policy);
#pragma unroll
    for (int i = 0; i < kZeroChunks; ++i) {
      CopyAsync16(to + (kScaleChunks + i) * 16, from + kLayout.scale_bytes() + (block * kZeroChunks + i) * 16, policy);
    }
  }
}
__device__ __forceinline__ void CopyCodes(BlockPlace place, int units, uint32_t to, uint64_t policy, int lane) {
  const uint8_t* from = reinterpret_cast<const uint8_t*>(place & ~BlockPlace{3}) + (static_cast<int>(place) & 3) * 512 + lane * 16;
  to += lane * 16;
#pragma unroll 2
  for (; units > 0; --units, from += kLayout.unit_bytes(), to += kPieceBytes) {
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) CopyAsync16(to + slab * 512, from + slab * kTileThreads * 16, policy);
  }
}

// The product of pieces with a row of x or h in shared memory: everything that a step reads is asked for first, and its planes go to two
// sums in turn.
class RowSums {
 public:
  __device__ __forceinline__ void Add(uint32_t pieces, uint32_t x, int units, int lane) {
#pragma unroll 1
    for (; units > 0; units -= kStep, pieces += kStep * kPieceBytes, x += kStep * kRowBytes) Step(pieces, x, units, lane);
  }
  /// Of rows q (half 0) and q + 8.
  __device__ __forceinline__ float Of(int half) const { return even_[2 * half] + odd_[2 * half]; }

 private:
  static constexpr int kStep = kUnitBlocks == 1 ? 2 : 1;  // units
  __device__ __forceinline__ void Step(uint32_t pieces, uint32_t x, int units, int lane) {
    constexpr int kGroup = kLayout.group == 0 ? kUnitK : kLayout.group;
    uint32_t words[kStep][kUnitBlocks * kBlockWords], b[kStep][kUnitBlocks * kPlanes / 2][4];
    RowScales scales[kStep];
#pragma unroll
    for (int u = 0; u < kStep; ++u) {
      const uint32_t piece = pieces + u * kPieceBytes, rows = piece + kCodeBytes;
#pragma unroll
      for (int slab = 0; slab < kSlabs; ++slab) LoadShared<16>(piece + slab * 512 + lane * 16, words[u] + 4 * slab);
      if constexpr (kScaleChunks > 0) LoadShared<RowScales::kScaleBytes>(rows + lane / 4 * RowScales::kScaleBytes, scales[u].scales);
      if constexpr (kZeroChunks > 0) {
        LoadShared<RowScales::kZeroBytes>(rows + kScaleChunks * 16 + lane / 4 * RowScales::kZeroBytes, scales[u].zeros);
      }
#pragma unroll
      for (int i = 0; i < kUnitBlocks * kPlanes / 2; ++i) LoadMatrices(x + u * kRowBytes + i * 64 + lane / 8 * 16, b[u][i]);
    }
    __syncwarp();  // or the assembler would move them to where they are needed
    float part[2][4] = {};
#pragma unroll
    for (int u = 0; u < kStep; ++u) {
      if (u >= units) continue;
#pragma unroll
      for (int i = 0; i < kUnitBlocks * kPlanes; ++i) {
        const int block = i / kPlanes, plane = i % kPlanes;
        uint32_t a[4];
        DecodePlane(words[u] + block * kBlockWords, scales[u], block, plane, a);
        float(&sum)[4] = kScaleOnAccumulator ? part[plane % 2] : plane % 2 == 0 ? even_ : odd_;
        Mma(sum, a, b[u][i / 2] + i % 2 * 2);
        if constexpr (kScaleOnAccumulator) {
          const int k = i * 16 + 16;
          if (k % kGroup != 0) continue;
          const int group = k / kGroup - 1;
          even_[0] = fmaf(AccumulatorScale(scales[u], 0, group), part[0][0] + part[1][0], even_[0]);
          even_[2] = fmaf(AccumulatorScale(scales[u], 1, group), part[0][2] + part[1][2], even_[2]);
#pragma unroll
          for (int j = 0; j < 4; ++j) part[0][j] = part[1][j] = 0;
        }
      }
    }
  }
  float even_[4] = {}, odd_[4] = {};
};

__device__ __forceinline__ uint64_t* WordOf(const HeldMoeArgs& args, int slot, int feature) {
  return args.exchange->h + (slot * args.gate_up.blocks * kFeatures + feature) / 2;
}

// Values of features `feature` and the next.
__device__ __forceinline__ void StoreH(const HeldMoeArgs& args, int slot, int feature, float value, float next, uint32_t launch) {
  const uint64_t word = static_cast<uint64_t>(launch) << 32 | PairFromFloats(value, next);
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(WordOf(args, slot, feature)), "l"(word) : "memory");
}

__device__ __forceinline__ ulonglong2 LoadWords(const uint64_t* from) {
  ulonglong2 words;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0,%1}, [%2];" : "=l"(words.x), "=l"(words.y) : "l"(from) : "memory");
  return words;
}
__device__ __forceinline__ bool IsFrom(const ulonglong2& words, uint32_t launch) {
  return static_cast<uint32_t>(words.x >> 32) == launch && static_cast<uint32_t>(words.y >> 32) == launch;
}

// A row of gate|up, from its sum on.
struct GateUpRow {
  float factor = 1, bias = 0;
  __device__ __forceinline__ GateUpRow(const HeldMatrix& matrix, int expert, int block, int row) {
    if (expert < 0) return;
    const int64_t n = (static_cast<int64_t>(expert) * matrix.blocks + block) * 16 + row;
    if (matrix.row_scale != nullptr) factor = __ldg(matrix.row_scale + n);
    if (matrix.bias != nullptr) bias = __ldg(matrix.bias + n);
  }
  __device__ __forceinline__ float Of(float sum) const { return fmaf(factor, sum, bias); }
};

// K of a matrix as the warps divide it.
__device__ __forceinline__ int FirstUnit(int units, int warp) { return static_cast<int>(static_cast<uint32_t>(units * warp) / kWarps); }

// Computes a block of h as the CTA that should have: the same sums in the same order. By one warp; x: of all warps.
__device__ __forceinline__ void ComputeBlock(const HeldMoeArgs& args, int expert, int slot, int block, uint32_t room, uint32_t x,
                                             uint32_t launch, int lane) {
  const int units = args.gate_up.units;
  float sums[2][2] = {};  // of two lanes of four, by half
#pragma unroll 1
  for (int part = 0; part < 4; ++part) {
    float some[2] = {};
#pragma unroll 1
    for (int warp = part; warp < kWarps; warp += 4) {
      const int first = FirstUnit(units, warp), count = FirstUnit(units, warp + 1) - first;
      const BlockPlace place = PlaceOf(args.gate_up, expert, block, first);
      if (lane == 0) CopyScales(place, count, room, EvictFirst());
      CopyCodes(place, count, room, EvictFirst(), lane);
      CommitCopies();
      WaitCopies<0>();
      __syncwarp();
      RowSums acc;
      acc.Add(room, x + warp * args.gate_up_units * kRowBytes, count, lane);
      some[0] += acc.Of(0), some[1] += acc.Of(1);
      __syncwarp();
    }
    if (part < 2) {
      sums[0][0] += some[0], sums[0][1] += some[1];
    } else {
      sums[1][0] += some[0], sums[1][1] += some[1];
    }
  }
  const int q = lane / 4;
  const float low = GateUpRow(args.gate_up, expert, block, q).Of(sums[0][0] + sums[1][0]);
  const float high = GateUpRow(args.gate_up, expert, block, q + 8).Of(sums[0][1] + sums[1][1]);
  float values[2];
  if constexpr (IsGated(kKind)) {
    values[0] = Activate<kKind>(low, high, args.activation), values[1] = 0;
  } else {
    values[0] = Activate<kKind>(low, 0.0f, args.activation), values[1] = Activate<kKind>(high, 0.0f, args.activation);
  }
#pragma unroll
  for (int half = 0; half < kFeatures / 8; ++half) {
    const float next = __shfl_down_sync(kAll, values[half], 4);
    if (lane % 8 == 0) StoreH(args, slot, block * kFeatures + 8 * half + q, values[half], next, launch);
  }
}

// All that is missing of a stretch of h. Every CTA has stretches of the same slots: each begins elsewhere.
__device__ __noinline__ void ComputeMissing(const HeldMoeArgs& args, int expert, int slot, int feature, int features, uint32_t room,
                                            uint32_t x, uint32_t launch) {
  const int lane = threadIdx.x % 32;
  const int first = feature / kFeatures, blocks = min((features + kFeatures - 1) / kFeatures, args.gate_up.blocks - first);
#pragma unroll 1
  for (int i = 0; i < blocks; ++i) {
    const int block = first + static_cast<int>((i + blockIdx.x) % static_cast<uint32_t>(blocks));
    const bool here = lane >= kFeatures / 4 || IsFrom(LoadWords(WordOf(args, slot, block * kFeatures + lane * 4)), launch);
    if (!__all_sync(kAll, here)) ComputeBlock(args, expert, slot, block, room, x, launch, lane);
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1) w4a16_held_moe(const __grid_constant__ HeldMoeArgs args) {
  extern __shared__ __align__(128) uint8_t dynamic[];  // [warp] pieces of gate|up and of down; [warp] columns of x; [warp] of h
  __shared__ Shared shared;
  FetchParameters(args);
  AllowDependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, cta = blockIdx.x;
  const uint64_t policy = EvictFirst();
  // The CTA's blocks of gate|up, and the warp's units of both.
  const uint32_t all_blocks = args.top_k * args.gate_up.blocks;
  const int first_block = static_cast<int>(all_blocks * cta / gridDim.x);
  const int blocks = static_cast<int>(all_blocks * (cta + 1) / gridDim.x) - first_block;
  const int unit = FirstUnit(args.gate_up.units, warp), units = FirstUnit(args.gate_up.units, warp + 1) - unit;
  const bool has_down = cta < args.down.blocks;
  const int all_units = args.top_k * args.down.units;
  const int down_unit = FirstUnit(all_units, warp), down_units = has_down ? FirstUnit(all_units, warp + 1) - down_unit : 0;
  // What a lane knows of: a block of gate|up, or a unit of down.
  const bool of_down = lane >= kFirstDown;
  const bool wanted = of_down ? lane - kFirstDown < down_units : lane < blocks;
  const uint32_t index = of_down ? down_unit + lane - kFirstDown : first_block + lane;
  const uint32_t of_slot = of_down ? args.down.units : args.gate_up.blocks;
  const int slot = wanted ? static_cast<int>(index / of_slot) : 0, in_slot = static_cast<int>(index) - slot * static_cast<int>(of_slot);
  // Shared memory.
  const int pieces = args.gate_up_blocks * args.gate_up_units;
  const uint32_t begin = SharedAddress(dynamic), mine = begin + warp * (pieces + args.down_units) * kPieceBytes;
  const uint32_t x = begin + kWarps * (pieces + args.down_units) * kPieceBytes, h = x + kWarps * args.gate_up_units * kRowBytes;
  const uint32_t my_x = x + warp * args.gate_up_units * kRowBytes, my_h = h + warp * args.down_units * kRowBytes;
  const uint32_t my_down = mine + pieces * kPieceBytes;
  const int down_slot = static_cast<int>(threadIdx.x) / 16, down_row = static_cast<int>(threadIdx.x) % 16;
  WaitForPredecessor();

  const int expert = wanted ? args.ids[slot] - args.first_expert : -1;
  const bool here = expert >= 0 && expert < args.E;
  const uint32_t launch = *reinterpret_cast<volatile uint32_t*>(args.exchange->launches + cta) + 1;
  const int down_expert = has_down && down_slot < args.top_k ? args.ids[down_slot] - args.first_expert : -1;
  const float weight = down_slot < args.top_k ? args.weights[down_slot] : 0.0f;
#pragma unroll 1
  for (int i = lane; i < units * (kRowBytes / 16); i += 32) {
    const int k = unit * kUnitK + i * 8;
    CopyAsync16Zeroed(my_x + i * 16, static_cast<const uint16_t*>(args.x) + (k < args.K ? k : 0), k < args.K ? 16 : 0);
  }
  BlockPlace place = 0;
  if (here) place = of_down ? PlaceOf(args.down, expert, cta, in_slot) : PlaceOf(args.gate_up, expert, in_slot, unit);
  if (of_down && here) {
    CopyScales(place, 1, my_down + (lane - kFirstDown) * kPieceBytes, policy);
  } else if (here) {
    CopyScales(place, units, mine + lane * args.gate_up_units * kPieceBytes, policy);
  }
#pragma unroll 1
  for (int i = 0; i < kMostHeldBlocks; ++i) {
    const BlockPlace from = __shfl_sync(kAll, place, i);
    if (from != 0) CopyCodes(from, units, mine + i * args.gate_up_units * kPieceBytes, policy, lane);
    CommitCopies();
  }

  // Two warps end a block of gate|up, four lanes a row.
  const int block = warp / 2, part = lane % 4;
  const int row = IsGated(kKind) ? lane / 4 % 4 + warp % 2 * 4 + lane / 16 * 8 : lane / 4 + warp % 2 * 8;
  const int block_expert = __shfl_sync(kAll, here ? expert : -1, block), block_slot = __shfl_sync(kAll, slot, block);
  const int block_in_slot = __shfl_sync(kAll, in_slot, block);
  const GateUpRow ends(args.gate_up, block_expert, block_in_slot, row);
  // And a thread knows one row of one slot of down.
  float factor = 0, bias = 0;
  if (down_expert >= 0 && down_expert < args.E) {
    const int64_t n = (static_cast<int64_t>(down_expert) * args.down.blocks + cta) * 16 + down_row;
    factor = args.down.row_scale == nullptr ? 1.0f : __ldg(args.down.row_scale + n);
    bias = args.down.bias == nullptr ? 0.0f : __ldg(args.down.bias + n);
  }
  // Rows of y that a thread ends, one of four.
  const int y_row = cta * 16 + static_cast<int>(threadIdx.x) / 4;
  const bool ends_y = has_down && threadIdx.x < 64 && y_row < args.N;
  const float addend = ends_y && part == 0 && args.addend != nullptr ? LoadAddend(args, y_row) : 0.0f;

#pragma unroll 1
  for (int i = 0; i < kMostHeldBlocks; ++i) {
    WaitCopies<kMostHeldBlocks - 1>();
#pragma unroll 1
    for (int j = i; j < down_units; j += kMostHeldBlocks) {
      const BlockPlace from = __shfl_sync(kAll, place, kFirstDown + j);
      if (from != 0) CopyCodes(from, 1, my_down + j * kPieceBytes, policy, lane);
    }
    CommitCopies();  // a group each time, if of nothing, so that the wait is for the next block
    __syncwarp();
    if (__shfl_sync(kAll, place, i) == 0) continue;
    RowSums acc;
    acc.Add(mine + i * args.gate_up_units * kPieceBytes, my_x, units, lane);
    if (part == 0) {
      float* sums = shared.gate_up[warp] + i * 16 + lane / 4;
      sums[0] = acc.Of(0), sums[8] = acc.Of(1);
    }
  }
  if (down_row == 0) shared.weight[down_slot] = weight;
  shared.factor[down_slot][down_row] = factor;
  shared.bias[down_slot][down_row] = weight * bias;
  __syncthreads();
  if (threadIdx.x == kThreads - 1) args.exchange->launches[cta] = launch;  // everybody has read it
  if (block < blocks && block_expert >= 0) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w += 4) sum += shared.gate_up[w + part][block * 16 + row];
    sum += __shfl_xor_sync(kAll, sum, 1);
    sum += __shfl_xor_sync(kAll, sum, 2);
    sum = ends.Of(sum);
    const float value = Activate<kKind>(sum, IsGated(kKind) ? __shfl_down_sync(kAll, sum, 16) : 0.0f, args.activation);
    const float next = __shfl_down_sync(kAll, value, 4);
    if (lane % 8 == 0 && row < kFeatures) StoreH(args, block_slot, block_in_slot * kFeatures + row, value, next, launch);
  }

  // The warp's stretch of h, four values a word pair and lane.
  constexpr int kPairs = kUnitK / 4, kBatch = 4;
  const int features = args.gate_up.blocks * kFeatures;
#pragma unroll 1
  for (int first = 0; first < down_units * kPairs; first += 32 * kBatch) {
    const uint64_t* from[kBatch];
    uint32_t missing = 0;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = first + i * 32 + lane, owner = kFirstDown + min(at / kPairs, kMostHeldUnits - 1);
      const bool has_expert = __shfl_sync(kAll, place, owner) != 0;
      const int of = __shfl_sync(kAll, slot, owner), feature = __shfl_sync(kAll, in_slot, owner) * kUnitK + at % kPairs * 4;
      const bool needed = at < down_units * kPairs && has_expert && feature < features;
      from[i] = needed ? WordOf(args, of, feature) : args.exchange->h;
      if (needed) missing |= 1u << i;
      if (!needed && at < down_units * kPairs) {
        asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(my_h + at * 8), "r"(0), "r"(0) : "memory");
      }
    }
#pragma unroll 1
    for (int polls = 0; __any_sync(kAll, missing != 0); ++polls) {
      ulonglong2 words[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) words[i] = LoadWords(from[i]);
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if ((missing >> i & 1) == 0 || !IsFrom(words[i], launch)) continue;
        missing &= ~(1u << i);
        asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(my_h + (first + i * 32 + lane) * 8), "r"(static_cast<uint32_t>(words[i].x)),
                     "r"(static_cast<uint32_t>(words[i].y))
                     : "memory");
      }
      if (polls < kPatience) continue;
      polls = 0;
#pragma unroll 1
      for (int i = 0; i < down_units; ++i) {
        const int helped = __shfl_sync(kAll, here ? expert : -1, kFirstDown + i), of = __shfl_sync(kAll, slot, kFirstDown + i);
        const int feature = __shfl_sync(kAll, in_slot, kFirstDown + i) * kUnitK;
        if (helped >= 0) ComputeMissing(args, helped, of, feature, kUnitK, mine, x, launch);
      }
    }
  }
  WaitCopies<0>();
  __syncwarp();
  float total[2] = {};
#pragma unroll 1
  for (int i = 0; i < down_units;) {
    const int of = __shfl_sync(kAll, slot, kFirstDown + i);
    const int count = min(down_units - i, args.down.units - __shfl_sync(kAll, in_slot, kFirstDown + i));
    if (__shfl_sync(kAll, place, kFirstDown + i) != 0) {
      RowSums acc;
      acc.Add(my_down + i * kPieceBytes, my_h + i * kRowBytes, count, lane);
      total[0] = fmaf(shared.weight[of], shared.factor[of][lane / 4] * acc.Of(0), total[0]);
      total[1] = fmaf(shared.weight[of], shared.factor[of][lane / 4 + 8] * acc.Of(1), total[1]);
    }
    i += count;
  }
  if (part == 0) shared.down[warp][lane / 4] = total[0], shared.down[warp][lane / 4 + 8] = total[1];
  __syncthreads();
  if (threadIdx.x < 64) {
    const int of_row = static_cast<int>(threadIdx.x) / 4;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w += 4) sum += shared.down[w + part][of_row];
#pragma unroll 1
    for (int j = part; j < args.top_k; j += 4) sum += shared.bias[j][of_row];
    sum += __shfl_xor_sync(kAll, sum, 1);
    sum += __shfl_xor_sync(kAll, sum, 2);
    if (ends_y && part == 0) StoreY(args, y_row, addend + sum);
  }
}
