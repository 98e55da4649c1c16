// The expert block of one token in one launch, where an SM holds its whole share of the weights: h[j] = act(W_gate_up[e_j] x + b[e_j]) for
// each slot j, then y = (addend) + sum over j of weights[j] (W_down[e_j] h[j] + b[e_j]).
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the TileLayout of both weights    BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_WARPS        warps of a CTA; an SM has one CTA
//   BF_ACTIVATION   ActivationKind, 0..5
//   BF_VALUES       0, or x, ids and weights are made here from the residual stream: its norm, the router's logits, of at most
//                   32 * BF_VALUES experts, and a softmax over the chosen ones. Each warp of all CTAs has an expert's logit at most
//
// Such a call is over before a ring would have gone round: each piece has a place of its own in shared memory, and nothing has to wait for
// room. As soon as the ids are there each warp asks for everything that it will multiply, what h needs first. Scheduling instructions is
// what the SM is then short of, as much as bytes: addresses wait for nothing but an expert, and down is decoded while h is on its way.
//
//   gate|up   a CTA has a stretch of the blocks of 16 packed rows of all slots; its warps divide K
//   down      a CTA has one block of 16 rows of y or none; its warps divide the units of all slots, so that y is complete in the CTA
//
// What CTAs tell each other, logits and h, is in words that say which launch they are from: whoever needs one reads it until it does, and
// no barrier is waited for. CTAs need not run at a time for that: who has waited for long computes what is missing. What is done twice
// gives the same bits. The order of every sum depends on the shapes alone.
#define BF_SHIFTS
#include "cuda/held_moe_args.h"
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/held_pieces.cuh"
#include "cuda/kernels/moe_output.cuh"
#include "cuda/kernels/parameters.cuh"
#include "cuda/kernels/tagged_words.cuh"
#include "cuda/kernels/weight.cuh"
#if BF_VALUES > 0
#include "cuda/kernels/held_route.cuh"
#include "cuda/kernels/norm_row.cuh"
#endif

namespace {
using namespace billfish::cuda;

#if BF_VALUES > 0
using Args = HeldNormedArgs;
#else
using Args = HeldMoeArgs;
constexpr uint32_t kAll = 0xffffffffu;
#endif

// The compiler would rather compute such a value again, at each use, than keep it.
__device__ __forceinline__ void Keep(uint32_t& value) { asm volatile("" : "+r"(value)); }
__device__ __forceinline__ void Keep(const uint8_t*& value) { asm volatile("" : "+l"(value)); }

constexpr int kWarps = BF_WARPS, kThreads = 32 * kWarps;
constexpr ActivationKind kKind = static_cast<ActivationKind>(BF_ACTIVATION);
constexpr int kFeatures = IsGated(kKind) ? 8 : 16;  // of h in a block of gate|up
constexpr int kFirstDown = kMostHeldBlocks;         // lanes from here on know where a unit of down is, those before a block of gate|up
static_assert(kThreads == 64 * kMostHeldBlocks && kThreads == 16 * kMostHeldSlots && kFirstDown + kMostHeldUnits == 32);

struct Shared {
  float gate_up[kWarps][kMostHeldBlocks * 16];  // each warp's sums
  float down[kWarps][16];
  float weight[kMostHeldSlots];
  float factor[kMostHeldSlots][16], bias[kMostHeldSlots][16];  // of the CTA's rows of down, by slot
};

__device__ __forceinline__ uint64_t* WordOf(const HeldMoeArgs& args, int slot, int feature) {
  return args.exchange->h + (slot * args.gate_up.blocks * kFeatures + feature) / 2;
}

// Values of features `feature` and the next.
__device__ __forceinline__ void StoreH(const HeldMoeArgs& args, int slot, int feature, float value, float next, uint32_t launch) {
  StoreWord(WordOf(args, slot, feature), PairFromFloats(value, next), launch);
}

// A row of gate|up, from its sum on.
struct GateUpRow {
  float factor = 1, bias = 0;
  __device__ __forceinline__ GateUpRow(const HeldMatrix& matrix, int expert, int block, int row) {
    if (expert < 0) return;
    const uint32_t n = (expert * matrix.blocks + block) * 16 + row;
    if (matrix.row_scale != nullptr) factor = __ldg(matrix.row_scale + n);
    if (matrix.bias != nullptr) bias = __ldg(matrix.bias + n);
  }
  __device__ __forceinline__ float Of(float sum) const { return fmaf(factor, sum, bias); }
};

// K of a matrix as the warps divide it.
__device__ __forceinline__ int FirstUnit(int units, int warp) { return static_cast<int>(static_cast<uint32_t>(units * warp) / kWarps); }

// Computes a block of h as the CTA that should have: the same sums in the same order. By one warp.
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
      const uint8_t* from =
          args.gate_up.weight +
          (static_cast<uint32_t>(expert) * args.gate_up.expert_chunks + ChunkOf(args.gate_up.units, block, first)) * int64_t{16};
      if (lane == 0) CopyScales(from, block % 4, count, room, EvictFirst());
      CopyCodes(from + lane * 16, count, room + lane * 16, EvictFirst());
      CommitCopies();
      WaitCopies<0>();
      __syncwarp();
      RowSums acc;
      acc.Add(PieceLane(room, lane), x + first * kRowBytes + lane / 8 * 16, count);
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

extern "C" __global__ void __launch_bounds__(kThreads, 1) w4a16_held_moe(const __grid_constant__ Args args) {
  extern __shared__ __align__(128) uint8_t dynamic[];  // [warp] pieces of gate|up and of down; x; [warp] its columns of h
  __shared__ Shared shared;
#if BF_VALUES > 0
  __shared__ __align__(16) uint32_t keys[32 * BF_VALUES];
  __shared__ __align__(16) float sums_of_squares[kWarps];
  __shared__ uint2 chosen[32];
#endif
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
  const uint32_t x = begin + kWarps * (pieces + args.down_units) * kPieceBytes, h = x + args.gate_up.units * kRowBytes;
  const uint32_t my_x = x + unit * kRowBytes, my_h = h + warp * args.down_units * kRowBytes;
  const uint32_t my_down = mine + pieces * kPieceBytes;
  const int down_slot = static_cast<int>(threadIdx.x) / 16, down_row = static_cast<int>(threadIdx.x) % 16;
  const uint32_t first_chunk = of_down ? ChunkOf(args.down.units, cta, in_slot) : ChunkOf(args.gate_up.units, in_slot, unit);
  const uint32_t expert_chunks = of_down ? args.down.expert_chunks : args.gate_up.expert_chunks;
  const uint8_t* my_weight = of_down ? args.down.weight : args.gate_up.weight;
  uint32_t my_piece = of_down ? my_down + (lane - kFirstDown) * kPieceBytes : mine + lane * args.gate_up_units * kPieceBytes;
  Keep(my_weight), Keep(my_piece);
  const uint8_t *gate_up_codes = args.gate_up.weight + lane * 16, *down_codes = args.down.weight + lane * 16;
  uint32_t gate_up_stride = args.gate_up_units * kPieceBytes, to = mine + lane * 16;
  Keep(gate_up_codes), Keep(down_codes), Keep(gate_up_stride), Keep(to);
#if BF_VALUES > 0
  const int routed = cta + warp * static_cast<int>(gridDim.x);  // the expert whose logit is the warp's
  if (routed < args.route.E) CopyRouterRow(args, routed, mine, lane);
  const NormRow<kWarps> norm(args.norm, 0);
  for (int k = args.K / 2 + threadIdx.x; k < args.gate_up.units * kUnitK / 2; k += kThreads) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(x + k * 4), "r"(0) : "memory");
  }
  WaitForPredecessor();

  const uint32_t launch = NextLaunch(*reinterpret_cast<volatile uint32_t*>(args.exchange->launches + cta));
  norm.Run(dynamic + (x - begin), cta == static_cast<int>(gridDim.x) - 1, sums_of_squares);
  if (routed < args.route.E) {
    WaitCopies<0>();
    __syncwarp();
    const float logit = LogitOf(args, routed, mine, x, lane);
    if (lane == 0) StoreWord(args.exchange->logits + routed, __float_as_uint(logit), launch);
  }
  if (warp < BF_VALUES) {
    const float logit = AwaitLogit(args, static_cast<int>(threadIdx.x), mine, x, launch, lane);
    keys[threadIdx.x] = static_cast<int>(threadIdx.x) < args.route.E ? Key(logit) : kTaken;
  }
  __syncthreads();
  ChooseByCounting(args.route, keys, chosen);
  __syncthreads();
  const auto expert_of = [&](int j) { return static_cast<int>(chosen[j].y) - args.first_expert; };
#else
  WaitForPredecessor();

  const uint32_t launch = NextLaunch(*reinterpret_cast<volatile uint32_t*>(args.exchange->launches + cta));
  const auto expert_of = [&](int j) { return args.ids[j] - args.first_expert; };
  const float weight = static_cast<int>(threadIdx.x) < args.top_k ? args.weights[threadIdx.x] : 0.0f;
#pragma unroll 1
  for (int i = lane; i < units * (kRowBytes / 16); i += 32) {
    const int k = unit * kUnitK + i * 8;
    CopyAsync16Zeroed(my_x + i * 16, static_cast<const uint16_t*>(args.x) + (k < args.K ? k : 0), k < args.K ? 16 : 0);
  }
#endif
  const int expert = wanted ? expert_of(slot) : -1;
  const bool here = expert >= 0 && expert < args.E;
  const int down_expert = has_down && down_slot < args.top_k ? expert_of(down_slot) : -1;
  const uint32_t present = __ballot_sync(kAll, here), chunk = expert * expert_chunks + first_chunk;
  if (here) {
    CopyScales(my_weight + chunk * int64_t{16}, (of_down ? cta : in_slot) % 4, of_down ? 1 : units, my_piece, policy);
  }
#pragma unroll
  for (int i = 0; i < kMostHeldBlocks; ++i) {
    const uint8_t* from = gate_up_codes + __shfl_sync(kAll, chunk, i) * int64_t{16};
    if ((present >> i & 1) != 0) CopyCodes(from, units, to, policy);
    CommitCopies();
    to += gate_up_stride;
  }
  to = my_down + lane * 16;
#pragma unroll 2
  for (int i = 0; i < down_units; ++i, to += kPieceBytes) {
    const uint8_t* from = down_codes + __shfl_sync(kAll, chunk, kFirstDown + i) * int64_t{16};
    if ((present >> (kFirstDown + i) & 1) != 0) CopyCodes(from, to, policy);
  }
  CommitCopies();

  // Two warps end a block of gate|up, four lanes a row.
  const int block = warp / 2, part = lane % 4;
  const int row = IsGated(kKind) ? lane / 4 % 4 + warp % 2 * 4 + lane / 16 * 8 : lane / 4 + warp % 2 * 8;
  const int block_expert = __shfl_sync(kAll, here ? expert : -1, block), block_slot = __shfl_sync(kAll, slot, block);
  const int block_in_slot = __shfl_sync(kAll, in_slot, block);
  const GateUpRow ends(args.gate_up, block_expert, block_in_slot, row);
  // And a thread knows one row of one slot of down.
  float factor = 0, bias = 0;
  if (down_expert >= 0 && down_expert < args.E) {
    const uint32_t n = (down_expert * args.down.blocks + cta) * 16 + down_row;
    factor = args.down.row_scale == nullptr ? 1.0f : __ldg(args.down.row_scale + n);
    bias = args.down.bias == nullptr ? 0.0f : __ldg(args.down.bias + n);
  }
  // Rows of y that a thread ends, one of four.
  const int y_row = cta * 16 + static_cast<int>(threadIdx.x) / 4;
  const bool ends_y = has_down && threadIdx.x < 64 && y_row < args.N;
  const float addend = ends_y && part == 0 && args.addend != nullptr ? LoadAddend(args, y_row) : 0.0f;

#if BF_VALUES > 0
  if (warp == kWarps - 1) {  // while the weights are on their way
    RouteArgs route = args.route;
    route.ids = reinterpret_cast<int32_t*>(keys), route.weights = shared.weight;  // nobody needs the ids again
    StoreChosen(route, 0, chosen, lane);
  }
#endif
  PieceLane from(mine, lane);
  float* sums = shared.gate_up[warp] + lane / 4;
#pragma unroll 1
  for (int i = 0; i < kMostHeldBlocks; ++i) {
    WaitCopies<kMostHeldBlocks>();
    CommitCopies();  // of nothing: so that the wait is for one group more each time
    __syncwarp();
    if ((present >> i & 1) != 0) {
      RowSums acc;
      acc.Add(from, my_x + lane / 8 * 16, units);
      if (part == 0) sums[0] = acc.Of(0), sums[8] = acc.Of(1);
    }
    from.Skip(gate_up_stride);
    Keep(from.codes), Keep(from.scales);
    sums += 16;
  }
#if BF_VALUES == 0
  if (static_cast<int>(threadIdx.x) < args.top_k) shared.weight[threadIdx.x] = weight;
#endif
  shared.factor[down_slot][down_row] = factor;
  shared.bias[down_slot][down_row] = bias;
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

  // The warp's stretch of h, four values a pair of words and lane. A lane that knows a unit of down knows its words and how many values
  // there are. The first units of down are decoded while others compute h.
  constexpr int kPairs = kUnitK / 4, kBatch = 4, kAhead = 4 / kUnitBlocks;
  const int first_word = (slot * args.gate_up.blocks * kFeatures + in_slot * kUnitK) / 2;
  const int values = of_down && here ? args.gate_up.blocks * kFeatures - in_slot * kUnitK : 0;
  DecodedUnit ahead[kAhead];
  int first = 0;
#pragma unroll 1
  for (;;) {
    WaitCopies<0>();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      ahead[i].Decode(PieceLane(my_down + min(i, args.down_units - 1) * kPieceBytes, lane), args.top_k == 0, mine);
    }
#pragma unroll 1
    for (; first < down_units * kPairs; first += 32 * kBatch) {
      const uint64_t* from[kBatch];
      uint32_t missing = 0;
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int at = first + i * 32 + lane, owner = min(kFirstDown + at / kPairs, 31), value = at % kPairs * 4;
        const int word = __shfl_sync(kAll, first_word, owner);
        const bool needed = value < __shfl_sync(kAll, values, owner) && at < down_units * kPairs;
        from[i] = args.exchange->h + (needed ? word + value / 2 : 0);
        if (needed) missing |= 1u << i;
        if (!needed && at < down_units * kPairs) {
          asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(my_h + at * 8), "r"(0), "r"(0) : "memory");
        }
      }
#pragma unroll 1
      for (int polls = 0; polls < kHeldPatience && __any_sync(kAll, missing != 0); ++polls) {
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
      }
      if (__any_sync(kAll, missing != 0)) break;
    }
    if (first >= down_units * kPairs) break;
#pragma unroll 1
    for (int i = 0; i < down_units; ++i) {
      const int helped = __shfl_sync(kAll, here ? expert : -1, kFirstDown + i), of = __shfl_sync(kAll, slot, kFirstDown + i);
      const int feature = __shfl_sync(kAll, in_slot, kFirstDown + i) * kUnitK;
      if (helped >= 0) ComputeMissing(args, helped, of, feature, kUnitK, mine, x, launch);
    }
  }
  __syncwarp();
  float total[2] = {};
  const auto add = [&](const RowSums& sums, int of) {
    total[0] = fmaf(shared.weight[of], shared.factor[of][lane / 4] * sums.Of(0), total[0]);
    total[1] = fmaf(shared.weight[of], shared.factor[of][lane / 4 + 8] * sums.Of(1), total[1]);
  };
  const uint32_t h_lane = my_h + lane / 8 * 16;
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int of = __shfl_sync(kAll, slot, kFirstDown + i);
    if ((present >> (kFirstDown + i) & 1) == 0) continue;
    RowSums sums;
    sums.Add(ahead[i], h_lane + i * kRowBytes);
    add(sums, of);
  }
#pragma unroll 1
  for (int i = kAhead; i < down_units;) {
    const int of = __shfl_sync(kAll, slot, kFirstDown + i);
    const int count = min(down_units - i, args.down.units - __shfl_sync(kAll, in_slot, kFirstDown + i));
    if ((present >> (kFirstDown + i) & 1) != 0) {
      RowSums sums;
      sums.Add(PieceLane(my_down + i * kPieceBytes, lane), h_lane + i * kRowBytes, count);
      add(sums, of);
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
    for (int j = part; j < args.top_k; j += 4) sum = fmaf(shared.weight[j], shared.bias[j][of_row], sum);
    sum += __shfl_xor_sync(kAll, sum, 1);
    sum += __shfl_xor_sync(kAll, sum, 2);
    if (ends_y && part == 0) StoreY(args, y_row, addend + sum);
  }
}
