// What the dense decode kernels share: how the items and units of a matrix are dealt out to teams of warps, the rings that bring the
// units, and how the teams' sums become rows of y. w4a16_linear_decode_sm80.cu has the overview.
//
// A team decodes whole units on its own: a warp, or a warpgroup of which each warp has one row block.
#pragma once

#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/weight.cuh"
#include "cuda/linear_decode_args.h"

namespace billfish::cuda {

inline constexpr int kUnitK = kLayout.unit_k(), kUnitBlocks = kUnitK / kBlockK;
inline constexpr int kRowChunks = kUnitK / 8;  // 16-byte chunks of a unit's columns in a row of x

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

/// 16 bytes to the shared memory of a CTA of the cluster.
__device__ __forceinline__ void StoreInCluster(uint32_t address, uint32_t cta, const float v[4]) {
#if __CUDA_ARCH__ >= 900
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(cta));
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(there), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
#else
  asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(address), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
#endif
}

/// Columns k .. k + 7 of a row of x; zero beyond K.
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

/// The items and units of a team, in order. Items are the panels or equal parts of them; a cluster works on one at a time, its CTA `rank`
/// on the units first .. last - 1.
template <int kTeams, int kItemsOfPanel>
struct Walk {
  int item, unit, turn;
  const int items, clusters, first, last, team;

  __device__ __forceinline__ Walk(const LinearDecodeArgs& args, int rank, int team_)
      : item(static_cast<int>(blockIdx.x) >> args.splits_log2),
        unit(0),
        turn(0),
        items(args.panels * kItemsOfPanel),
        clusters(static_cast<int>(gridDim.x) >> args.splits_log2),
        first(static_cast<int>(static_cast<int64_t>(rank) * args.units >> args.splits_log2)),
        last(static_cast<int>(static_cast<int64_t>(rank + 1) * args.units >> args.splits_log2)),
        team(team_) {
    unit = FirstUnit();
  }
  __device__ __forceinline__ bool Done() const { return item >= items; }
  __device__ __forceinline__ void NextItem() {
    item += clusters;
    ++turn;
    unit = FirstUnit();
  }
  // The teams take turns in being the first, so that none has the short end every time.
  __device__ __forceinline__ int FirstUnit() const { return first + (team + turn) % kTeams; }
};

/// What a warp copies into its ring: of each unit of its team, kRowBlocks row blocks, from the item's first on and then `block`.
/// A stage is [slab][row block][lane] 16 bytes of codes, then the scales and zero points of these row blocks.
template <int kTeams, int kRowBlocks, int kItemsOfPanel>
class Copier {
 public:
  static constexpr int kSlabBytes = kTileThreads * 16, kSlabs = kLayout.code_bytes() / kSlabBytes;
  static constexpr int kCodeBytes = kSlabs * kRowBlocks * 512;
  // LoadRowScales finds zero points behind the scales of all four row blocks.
  static constexpr int kScaleBytes = kLayout.zeros ? kLayout.scale_bytes() : kLayout.scale_bytes() * kRowBlocks / 4;
  static constexpr int kStageBytes = (kCodeBytes + kScaleBytes + kLayout.zero_bytes() * kRowBlocks / 4 + 15) / 16 * 16;

  __device__ __forceinline__ Copier(const LinearDecodeArgs& args, const Walk<kTeams, kItemsOfPanel>& walk, int block, int lane)
      : args_(args), walk_(walk), own_block_(block), lane_(lane), policy_(EvictFirst()) {
    Settle();
  }

  __device__ __forceinline__ bool Done() const { return walk_.Done(); }
  __device__ __forceinline__ int unit() const { return walk_.unit; }

  /// Call while not Done, before Advance.
  __device__ __forceinline__ void CopyWeights(uint32_t stage) const {
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
        CopyAsync16(stage + (slab * kRowBlocks + rb) * 512 + lane_ * 16, from_ + slab * kSlabBytes + rb * 512, policy_);
      }
    }
    CopyFew<kLayout.scale_bytes() / 4>(stage + kCodeBytes, kLayout.code_bytes());
    CopyFew<kLayout.zero_bytes() / 4>(stage + kCodeBytes + kScaleBytes, kLayout.code_bytes() + kLayout.scale_bytes());
  }

  __device__ __forceinline__ void Advance() {
    walk_.unit += kTeams;
    from_ += kTeams * kLayout.unit_bytes();
    if (walk_.unit < walk_.last) return;
    walk_.NextItem();
    Settle();
  }

 private:
  // To the next unit that exists: a slice may have fewer units than there are teams, or none.
  __device__ __forceinline__ void Settle() {
    while (!walk_.Done() && walk_.unit >= walk_.last) {
      if (walk_.first >= walk_.last) walk_.item = walk_.items;
      if (!walk_.Done()) walk_.NextItem();
    }
    block_ = walk_.item % kItemsOfPanel * kRowBlocks + own_block_;
    const int64_t unit = static_cast<int64_t>(walk_.item / kItemsOfPanel) * args_.units + walk_.unit;
    from_ = args_.weight + unit * kLayout.unit_bytes() + block_ * 512 + lane_ * 16;
  }

  // kBytes of each row block from `offset` of the unit.
  template <int kBytes>
  __device__ __forceinline__ void CopyFew(uint32_t to, int offset) const {
    constexpr int kChunks = kBytes * kRowBlocks / 16;
#pragma unroll
    for (int i = 0; i < (kChunks + 31) / 32; ++i) {
      if (i * 32 + lane_ < kChunks) {
        CopyAsync16(to + (i * 32 + lane_) * 16, from_ + offset + block_ * (kBytes - 512) + i * 512, policy_);
      }
    }
  }

  const LinearDecodeArgs& args_;
  Walk<kTeams, kItemsOfPanel> walk_;
  int own_block_, lane_;
  uint64_t policy_;
  int block_ = 0;
  const uint8_t* from_ = nullptr;  // this lane's place in the codes of the first row block
};

/// The sums of an item on their way from the teams to y. Sum f = ((row block * kTiles + tile) * 32 + lane) * 4 + j is number j of that
/// lane's accumulator of that tile (mma.cuh). CTA c of the cluster finishes the c-th part of them; each team of each CTA has a slot there.
/// Sums are added in the order of the slots.
template <int kRowBlocks, int kTiles, int kTeams, int kThreads>
struct Sums {
  static constexpr int kRows = 16 * kRowBlocks, kCount = kRowBlocks * kTiles * 128;
  float slots[kTeams * kCount];
  float factors[2 * kRows];  // row_scale, then bias

  __device__ __forceinline__ void Put(int splits_log2, int rank, int team, int lane, int block, int tile, const float v[4]) {
    const int share_log2 = 31 - __clz(kCount / 4) - splits_log2;
    const int f = (block * kTiles + tile) * 32 + lane, cta = f >> share_log2;
    const int at = ((rank * kTeams + team) << share_log2) + f - (cta << share_log2);
    StoreInCluster(SharedAddress(slots) + at * 16, static_cast<uint32_t>(cta), v);
  }

  __device__ __forceinline__ void Finish(const LinearDecodeArgs& args, int item, int rank) const {
    const int share = kCount >> args.splits_log2, count = kTeams << args.splits_log2;
    for (int e = threadIdx.x; e < share; e += kThreads) {
      float sum = slots[e];
#pragma unroll 8
      for (int s = 1; s < count; ++s) sum += slots[s * share + e];
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
};

/// A thread's row factor (threads 0 .. kRows - 1) or bias (the next kRows): asked for at the start of an item, needed at its end.
template <int kRows>
__device__ __forceinline__ float LoadFactor(const LinearDecodeArgs& args, int item) {
  const int t = threadIdx.x;
  if (t >= 2 * kRows) return 0.0f;
  const float* from = t < kRows ? args.row_scale : args.bias;
  if (from == nullptr) return t < kRows ? 1.0f : 0.0f;
  return __ldg(from + item * kRows + t % kRows);
}

}  // namespace billfish::cuda
