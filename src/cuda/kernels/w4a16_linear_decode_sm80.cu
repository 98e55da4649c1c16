// Linear for few rows of activations: y = x . W^T at the speed at which W can be read.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_TOKENS       rows of x at most: 8, 16 or 32
//   BF_ROW_BLOCKS   16-row blocks of an item: 4 (a panel), 2 or 1
//   BF_WARPS        warps of a CTA            BF_BLOCKS   CTAs an SM
//   BF_STAGES       units in a warp's ring    BF_BUFFERS  1 or 2 sets of partial sums
//   BF_STREAM_X     0: the CTA's slice of x stays in shared memory; 1: x comes through the rings, unit by unit
//
// W is the A operand: rows of W are the rows of the product, tokens its columns. An item is BF_ROW_BLOCKS row blocks of a panel. A cluster
// works on one item at a time; its CTAs split K into slices of whole units, and the warps of a CTA take the units of the slice in turn.
// Every warp decodes whole units alone from its own ring in shared memory, so that the main loop waits for nothing but memory.
//
// End of an item: each warp sends its sums to the CTA that finishes them (through distributed shared memory where that is another one),
// arrives at the cluster's barrier and begins the next item. Only after that does it wait at the barrier and finish its part of the item
// before: nobody stands still while others end. Sums are added in the order of the CTAs and warps: every run gives the same bits.
//
// Columns of the tensor-core step beyond M repeat row M - 1 of x and are thrown away.
#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/weight.cuh"
#include "cuda/linear_decode_args.h"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = BF_WARPS, kThreads = 32 * kWarps, kStages = BF_STAGES, kBuffers = BF_BUFFERS;
constexpr int kRowBlocks = BF_ROW_BLOCKS, kRows = 16 * kRowBlocks, kItemsOfPanel = 4 / kRowBlocks;
constexpr int kTokens = BF_TOKENS, kTiles = kTokens / 8;
constexpr bool kStreamX = BF_STREAM_X != 0;
constexpr int kUnitK = kLayout.unit_k(), kBlocks = kUnitK / kBlockK;

// A stage of a ring: [slab][row block][lane] 16 bytes of codes, the unit's scales and zero points (the first kRowBlocks / 4 of them), x.
constexpr int kSlabBytes = kTileThreads * 16, kSlabs = kLayout.code_bytes() / kSlabBytes, kSlabsOfBlock = kSlabs / kBlocks;
constexpr int kCodeBytes = kSlabs * kRowBlocks * 512;
constexpr int kWeightBytes = kCodeBytes + kLayout.scale_bytes() + kLayout.zero_bytes();
constexpr int kXOffset = kStreamX ? (kWeightBytes + 255) / 256 * 256 : kWeightBytes;  // its chunks are addressed by exclusive or
constexpr int kRowChunks = kUnitK / 8;                                                // 16-byte chunks of a unit's columns in a row of x
constexpr int kStageBytes = kXOffset + (kStreamX ? kTokens * kUnitK * 2 : 0);
constexpr int kSums = kRowBlocks * kTiles * 128;  // of an item

__device__ __forceinline__ void Arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#else
  __syncthreads();
#endif
}

__device__ __forceinline__ void WaitArrived() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// 16 bytes to the shared memory of a CTA of the cluster.
__device__ __forceinline__ void StoreInCluster(uint32_t address, uint32_t cta, const float v[4]) {
#if __CUDA_ARCH__ >= 900
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(cta));
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(there), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
#else
  asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(address), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
#endif
}

__device__ __forceinline__ void LoadMatrices(uint32_t address, uint32_t v[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
               : "r"(address));
}

// 16 bytes of columns k .. k + 7 of a row of x; zero beyond K.
__device__ __forceinline__ uint4 LoadColumns(const LinearDecodeArgs& args, int row, int k) {
  const uint16_t* from = static_cast<const uint16_t*>(args.x) + row * args.x_stride + k;
  if (args.x_aligned != 0 && k + 8 <= args.K) return __ldg(reinterpret_cast<const uint4*>(from));
  uint32_t v[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    v[j] = (k + 2 * j < args.K ? from[2 * j] : 0u) | (k + 2 * j + 1 < args.K ? static_cast<uint32_t>(from[2 * j + 1]) << 16 : 0u);
  }
  return uint4{v[0], v[1], v[2], v[3]};
}

// The items and units of a warp, in order.
struct Walk {
  int item, unit, turn;
  const int items, clusters, first, last, warp;

  __device__ __forceinline__ Walk(const LinearDecodeArgs& args, int rank, int warp_)
      : item(static_cast<int>(blockIdx.x) >> args.splits_log2),
        unit(0),
        turn(0),
        items(args.panels * kItemsOfPanel),
        clusters(static_cast<int>(gridDim.x) >> args.splits_log2),
        first(static_cast<int>(static_cast<int64_t>(rank) * args.units >> args.splits_log2)),
        last(static_cast<int>(static_cast<int64_t>(rank + 1) * args.units >> args.splits_log2)),
        warp(warp_) {
    unit = FirstUnit();
  }
  // The warps take turns in being the first, so that none has the short end every time.
  __device__ __forceinline__ int FirstUnit() const { return first + (warp + turn) % kWarps; }
  __device__ __forceinline__ bool Done() const { return item >= items; }
  __device__ __forceinline__ void NextItem() {
    item += clusters;
    ++turn;
    unit = FirstUnit();
  }
};

// What a warp copies next.
class Copier {
 public:
  __device__ __forceinline__ Copier(const LinearDecodeArgs& args, const Walk& walk, uint32_t ring, int lane)
      : args_(args), walk_(walk), ring_(ring), lane_(lane), policy_(EvictFirst()) {
    Settle();
  }

  __device__ __forceinline__ void CopyWeights() {
    if (walk_.Done()) return;
    const uint32_t stage = ring_ + stage_ * kStageBytes;
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
        CopyAsync16(stage + (slab * kRowBlocks + rb) * 512 + lane_ * 16, from_ + slab * kSlabBytes + rb * 512, policy_);
      }
    }
    // from_ is this lane's place in the codes of its first row block.
    CopyFew<kLayout.scale_bytes() / 4>(stage + kCodeBytes, kLayout.code_bytes());
    CopyFew<kLayout.zero_bytes() / 4>(stage + kCodeBytes + kLayout.scale_bytes(), kLayout.code_bytes() + kLayout.scale_bytes());
  }

  __device__ __forceinline__ void CopyX() {
    if (walk_.Done()) return;
    const uint32_t stage = ring_ + stage_ * kStageBytes + kXOffset;
    for (int i = lane_; i < args_.M * kRowChunks; i += 32) {
      const int r = i / kRowChunks, chunk = i % kRowChunks, k = walk_.unit * kUnitK + chunk * 8;
      const uint32_t to = stage + (r * kRowChunks + (chunk ^ (r & 7))) * 16;
      if (args_.x_aligned != 0 && k + 8 <= args_.K) {
        CopyAsync16(to, static_cast<const uint16_t*>(args_.x) + r * args_.x_stride + k);
      } else {
        const uint4 v = LoadColumns(args_, r, k);
        asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
      }
    }
  }

  __device__ __forceinline__ void Advance() {
    if (walk_.Done()) return;
    stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
    walk_.unit += kWarps;
    from_ += kWarps * kLayout.unit_bytes();
    if (walk_.unit >= walk_.last) {
      walk_.NextItem();
      Settle();
    }
  }

 private:
  // To the next unit that exists: a slice may have fewer units than warps.
  __device__ __forceinline__ void Settle() {
    while (!walk_.Done() && walk_.unit >= walk_.last) {
      if (walk_.first >= walk_.last) {
        walk_.item = walk_.items;
      } else {
        walk_.NextItem();
      }
    }
    block_ = walk_.item % kItemsOfPanel * kRowBlocks;
    const int64_t unit = static_cast<int64_t>(walk_.item / kItemsOfPanel) * args_.units + walk_.unit;
    from_ = args_.weight + unit * kLayout.unit_bytes() + block_ * 512 + lane_ * 16;
  }

  // kBytes of each row block from `offset` of the unit.
  template <int kBytes>
  __device__ __forceinline__ void CopyFew(uint32_t to, int offset) {
    constexpr int kChunks = kBytes * kRowBlocks / 16;
#pragma unroll
    for (int i = 0; i < (kChunks + 31) / 32; ++i) {
      if (i * 32 + lane_ >= kChunks) break;
      CopyAsync16(to + (i * 32 + lane_) * 16, from_ + offset + block_ * (kBytes - 512) + i * 512, policy_);
    }
  }

  const LinearDecodeArgs& args_;
  Walk walk_;
  uint32_t ring_;
  int lane_;
  uint64_t policy_;
  int stage_ = 0, block_ = 0;
  const uint8_t* from_ = nullptr;
};

// d = a b
__device__ __forceinline__ void MmaFirst(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  d[0] = d[1] = d[2] = d[3] = 0.0f;
  Mma(d, a, b);
}

// acc += W x^T of one unit.
__device__ __forceinline__ void MultiplyUnit(const uint8_t* stage, const uint32_t (&x_row)[kTiles], int lane,
                                             float (&acc)[kRowBlocks][kTiles][4]) {
  uint32_t b[kBlocks * kPlanes][kTiles][2];
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < kBlocks * kPlanes / 2; ++i) {
      uint32_t v[4];
      LoadMatrices(kStreamX ? x_row[n] ^ (i * 64) : x_row[n] + i * 64, v);
      b[2 * i][n][0] = v[0], b[2 * i][n][1] = v[1], b[2 * i + 1][n][0] = v[2], b[2 * i + 1][n][1] = v[3];
    }
  }
#pragma unroll
  for (int rb = 0; rb < kRowBlocks; ++rb) {
    const RowScales scales = LoadRowScales(stage + kCodeBytes - kLayout.code_bytes(), rb, lane / 4);
    float part[kTiles][4];
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      uint32_t words[kBlockWords];
#pragma unroll
      for (int i = 0; i < kSlabsOfBlock; ++i) {
        const uint4 v = *reinterpret_cast<const uint4*>(stage + ((block * kSlabsOfBlock + i) * kRowBlocks + rb) * 512 + lane * 16);
        words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
      }
#pragma unroll
      for (int plane = 0; plane < kPlanes; ++plane) {
        const int step = block * kPlanes + plane;
        uint32_t a[4];
        DecodePlane(words, scales, block, plane, a);
        if constexpr (kScaleOnAccumulator) {
          const bool begins = step * 16 % kLayout.group == 0, ends = (step + 1) * 16 % kLayout.group == 0;
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
            if (begins) {
              MmaFirst(part[n], a, b[step][n]);
            } else {
              Mma(part[n], a, b[step][n]);
            }
          }
          if (ends) {
            const int group = step * 16 / kLayout.group;
            const float low = AccumulatorScale(scales, 0, group), high = AccumulatorScale(scales, 1, group);
#pragma unroll
            for (int n = 0; n < kTiles; ++n) {
              acc[rb][n][0] += low * part[n][0], acc[rb][n][1] += low * part[n][1];
              acc[rb][n][2] += high * part[n][2], acc[rb][n][3] += high * part[n][3];
            }
          }
        } else {
#pragma unroll
          for (int n = 0; n < kTiles; ++n) Mma(acc[rb][n], a, b[step][n]);
        }
      }
    }
  }
}

// Adds up and stores this CTA's share of an item.
__device__ __forceinline__ void Finish(const LinearDecodeArgs& args, int item, int rank, const float* parts, const float* factors) {
  const int share = kSums >> args.splits_log2, slots = kWarps << args.splits_log2;
  for (int e = threadIdx.x; e < share; e += kThreads) {
    float sum = parts[e];
#pragma unroll 8
    for (int s = 1; s < slots; ++s) sum += parts[s * share + e];
    const int f = rank * share + e, j = f % 4, lane = f / 4 % 32, block = f / 128;
    const int row = block / kTiles * 16 + lane / 4 + j / 2 * 8, token = block % kTiles * 8 + lane % 4 * 2 + j % 2;
    const int n = item * kRows + row;
    if (n >= args.N || token >= args.M) continue;
    const float value = fmaf(sum, factors[row], factors[kRows + row]);
    const int64_t at = token * args.y_stride + n;
    if (args.out == OutType::kF32) {
      static_cast<float*>(args.y)[at] = value;
    } else {
      const uint32_t pair = args.out == OutType::kBF16 ? BF16PairFromFloats(value, 0.0f) : F16PairFromFloats(value, 0.0f);
      static_cast<uint16_t*>(args.y)[at] = static_cast<uint16_t>(pair & 0xffffu);
    }
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BF_BLOCKS) w4a16_linear_decode(const __grid_constant__ LinearDecodeArgs args) {
  // rings, partial sums, factors and biases, x
  extern __shared__ __align__(256) uint8_t shared[];
  float* parts = reinterpret_cast<float*>(shared + kWarps * kStages * kStageBytes);
  float* factors = parts + kBuffers * kWarps * kSums;
  uint8_t* x_slice = reinterpret_cast<uint8_t*>(factors + kBuffers * 2 * kRows);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int rank = static_cast<int>(blockIdx.x) & ((1 << args.splits_log2) - 1);
  const uint8_t* ring = shared + warp * kStages * kStageBytes;

  Arrive();  // that this CTA runs: its shared memory may be written
  AllowDependents();
  Walk walk(args, rank, warp);
  Copier copier(args, walk, SharedAddress(ring), lane);
  if constexpr (kStreamX) {
    Copier ahead = copier;
    for (int s = 0; s < kStages - 1; ++s) {
      ahead.CopyWeights();
      ahead.Advance();
    }
    WaitForPredecessor();
    for (int s = 0; s < kStages - 1; ++s) {
      copier.CopyX();
      copier.Advance();
      CommitCopies();
    }
  } else {
    for (int s = 0; s < kStages - 1; ++s) {
      copier.CopyWeights();
      copier.Advance();
      CommitCopies();
    }
    WaitForPredecessor();
    const int chunks = (walk.last - walk.first) * kRowChunks;
#pragma unroll 4
    for (int i = threadIdx.x; i < args.M * chunks; i += kThreads) {
      const int row = i / chunks, chunk = i - row * chunks;
      *reinterpret_cast<uint4*>(x_slice + row * args.x_row_bytes + chunk * 16) = LoadColumns(args, row, walk.first * kUnitK + chunk * 8);
    }
    __syncthreads();
  }

  int slot = 0, before = -1;
  for (; !walk.Done(); walk.NextItem()) {
    // The factor or bias of a row, asked for long before it is needed.
    float factor = 0;
    if (threadIdx.x < 2 * kRows) {
      const float* from = threadIdx.x < kRows ? args.row_scale : args.bias;
      factor = from != nullptr ? __ldg(from + walk.item * kRows + threadIdx.x % kRows) : threadIdx.x < kRows ? 1.0f : 0.0f;
    }
    float acc[kRowBlocks][kTiles][4] = {};
    for (; walk.unit < walk.last; walk.unit += kWarps) {
      WaitCopies<kStages - 2>();
      __syncwarp();
      copier.CopyWeights();
      if constexpr (kStreamX) copier.CopyX();
      copier.Advance();
      CommitCopies();
      const uint8_t* stage = ring + slot * kStageBytes;
      slot = slot + 1 == kStages ? 0 : slot + 1;
      uint32_t x_row[kTiles];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int row = min(n * 8 + lane % 8, args.M - 1);
        if constexpr (kStreamX) {
          x_row[n] = SharedAddress(stage) + kXOffset + row * kUnitK * 2 + (lane / 8 ^ (row & 7)) * 16;
        } else {
          x_row[n] = SharedAddress(x_slice) + row * args.x_row_bytes + (walk.unit - walk.first) * kUnitK * 2 + lane / 8 * 16;
        }
      }
      MultiplyUnit(stage, x_row, lane, acc);
    }

    WaitArrived();
    const int buffer = kBuffers == 2 ? walk.turn % 2 : 0;
    if (before >= 0) {
      Finish(args, before, rank, parts + (kBuffers - 1) * (buffer ^ 1) * kWarps * kSums,
             factors + (kBuffers - 1) * (buffer ^ 1) * 2 * kRows);
      if constexpr (kBuffers == 1) {
        Arrive();
        WaitArrived();
      }
    }
    const int share_log2 = 31 - __clz(kSums / 4) - args.splits_log2;
    const uint32_t mine = SharedAddress(parts + buffer * kWarps * kSums) + (((rank * kWarps + warp) << share_log2) * 16);
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int f = (rb * kTiles + n) * 32 + lane, cta = f >> share_log2;
        StoreInCluster(mine + (f - (cta << share_log2)) * 16, static_cast<uint32_t>(cta), acc[rb][n]);
      }
    }
    if (threadIdx.x < 2 * kRows) factors[buffer * 2 * kRows + threadIdx.x] = factor;
    Arrive();
    before = walk.item;
  }
  WaitArrived();
  const int buffer = kBuffers == 2 ? (walk.turn - 1) % 2 : 0;
  if (before >= 0) Finish(args, before, rank, parts + buffer * kWarps * kSums, factors + buffer * 2 * kRows);
  WaitCopies<0>();
}
