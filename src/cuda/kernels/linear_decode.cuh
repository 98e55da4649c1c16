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

/// Where the sums of an item meet on their way from the teams to y. Sum f = ((row block * kTiles + tile) * 32 + lane) * 4 + j is number
/// j of that lane's accumulator of that tile (mma.cuh). CTA c of the cluster finishes the c-th part of them; each team of each CTA has a
/// slot there. Sums are added in the order of the slots.
///
/// Item number `turn` of a CTA has buffer turn % kBuffers. `full` of a buffer completes when every warp of this CTA has arrived and
/// every byte from the others has; `empty` when every warp of every CTA has read what it needed. A cluster-wide barrier would do both,
/// but it makes each warp wait until all its copies and stores are done, and the rings would run dry.
template <int kRowBlocks, int kTiles, int kTeams, int kWarps, int kBuffers>
class Reduction {
 public:
  static constexpr int kRows = 16 * kRowBlocks, kCount = kRowBlocks * kTiles * 128;
  struct Shared {
    float slots[kBuffers][kTeams * kCount];
    float factors[kBuffers][2 * kRows];  // row_scale, then bias
    uint64_t full[kBuffers], empty[kBuffers];
  };

  __device__ __forceinline__ Reduction(const LinearDecodeArgs& args, Shared* shared, int rank)
      : args_(args), shared_(shared), rank_(rank), share_log2_(31 - __clz(kCount / 4) - args.splits_log2) {}

  /// First of all: the barriers, and that this CTA runs.
  __device__ __forceinline__ void Begin() {
    if (threadIdx.x == 0) {
      for (int i = 0; i < kBuffers; ++i) {
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(&shared_->full[i])), "r"(kWarps) : "memory");
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(&shared_->empty[i])), "r"(kWarps << args_.splits_log2)
                     : "memory");
      }
#if __CUDA_ARCH__ >= 900
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
    }
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
  }

  /// Before the first Put: that the other CTAs run.
  __device__ __forceinline__ void WaitBegun() const {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
#endif
  }

  /// A thread's row factor (threads 0 .. kRows - 1) or bias (the next kRows): asked for at the start of an item, needed at its end.
  __device__ __forceinline__ float LoadFactor(int item) const {
    const int t = threadIdx.x;
    if (t >= 2 * kRows) return 0.0f;
    const float* from = t < kRows ? args_.row_scale : args_.bias;
    if (from == nullptr) return t < kRows ? 1.0f : 0.0f;
    return __ldg(from + item * kRows + t % kRows);
  }

  /// A warp's sums of item number `turn`: WaitEmpty, Put for every block and tile, Sent.
  __device__ __forceinline__ void WaitEmpty(int turn) const {
    if (turn >= kBuffers) Wait(&shared_->empty[turn % kBuffers], turn / kBuffers - 1);
  }
  __device__ __forceinline__ void Put(int turn, int team, int block, int tile, const float v[4]) const {
    const int f = (block * kTiles + tile) * 32 + static_cast<int>(threadIdx.x) % 32, cta = f >> share_log2_;
    const int at = ((rank_ * kTeams + team) << share_log2_) + f - (cta << share_log2_);
    float4* to = reinterpret_cast<float4*>(shared_->slots[turn % kBuffers]) + at;
    if (cta == rank_) {
      *to = float4{v[0], v[1], v[2], v[3]};
      return;
    }
#if __CUDA_ARCH__ >= 900
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1,%2,%3,%4}, [%5];" ::"r"(AddressIn(to, cta)),
                 "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(AddressIn(&shared_->full[turn % kBuffers], cta))
                 : "memory");
#endif
  }
  __device__ __forceinline__ void Sent(int turn, float factor) const {
    if (threadIdx.x < 2 * kRows) shared_->factors[turn % kBuffers][threadIdx.x] = factor;
    __syncwarp();
    if (threadIdx.x % 32 != 0) return;
    const uint32_t full = SharedAddress(&shared_->full[turn % kBuffers]);
    if (threadIdx.x == 0 && args_.splits_log2 > 0) {
#if __CUDA_ARCH__ >= 900
      const uint32_t bytes = static_cast<uint32_t>(((1 << args_.splits_log2) - 1) * kTeams * 16) << share_log2_;
      asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(full), "r"(bytes) : "memory");
#endif
    } else {
      asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(full) : "memory");
    }
  }

  /// Adds up and stores this CTA's part of item number `turn`. reused: the buffer serves another item.
  __device__ __forceinline__ void Finish(int turn, int item, bool reused) const {
    Wait(&shared_->full[turn % kBuffers], turn / kBuffers);
    const int share = 4 << share_log2_, count = kTeams << args_.splits_log2;
    const float* slots = shared_->slots[turn % kBuffers];
    const float* factors = shared_->factors[turn % kBuffers];
    for (int e = 2 * threadIdx.x; e < share; e += kWarps * 64) {
      const float* from = slots + e;
      float2 sum = {0.0f, 0.0f};
      for (int s = 0; s < count; s += kTeams) {
#pragma unroll
        for (int i = 0; i < kTeams; ++i, from += share) {
          const float2 v = *reinterpret_cast<const float2*>(from);
          sum.x += v.x, sum.y += v.y;
        }
      }
      // Two tokens of one row.
      const int f = rank_ * share + e, lane = f / 4 % 32, block = f / 128;
      const int row = block / kTiles * 16 + lane / 4 + f % 4 / 2 * 8, token = block % kTiles * 8 + lane % 4 * 2;
      const int n = item * kRows + row;
      if (n >= args_.N || token >= args_.M) continue;
      const float scale = factors[row], bias = factors[kRows + row];
      Store(token, n, fmaf(sum.x, scale, bias));
      if (token + 1 < args_.M) Store(token + 1, n, fmaf(sum.y, scale, bias));
    }
    if (!reused) return;  // the other CTAs may be gone
    __syncwarp();
    const int cta = threadIdx.x % 32;
    if (cta >> args_.splits_log2 != 0) return;
    uint64_t* empty = &shared_->empty[turn % kBuffers];
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(AddressIn(empty, cta)) : "memory");
#else
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(SharedAddress(empty)) : "memory");
#endif
  }

 private:
  __device__ __forceinline__ void Store(int token, int n, float value) const {
    const int64_t at = token * args_.y_stride + n;
    if (args_.out == OutType::kF32) {
      static_cast<float*>(args_.y)[at] = value;
    } else {
      const uint32_t pair = args_.out == OutType::kBF16 ? BF16PairFromFloats(value, 0.0f) : F16PairFromFloats(value, 0.0f);
      static_cast<uint16_t*>(args_.y)[at] = static_cast<uint16_t>(pair & 0xffffu);
    }
  }

#if __CUDA_ARCH__ >= 900
  static __device__ __forceinline__ uint32_t AddressIn(const void* shared, int cta) {
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(SharedAddress(shared)), "r"(cta));
    return there;
  }
#endif

  static __device__ __forceinline__ void Wait(const uint64_t* barrier, int phase) {
    const uint32_t address = SharedAddress(barrier);
    uint32_t done = 0;
    while (done == 0) {
#if __CUDA_ARCH__ >= 900
      asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                   : "=r"(done)
                   : "r"(address), "r"(phase & 1)
                   : "memory");
#else
      asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                   : "=r"(done)
                   : "r"(address), "r"(phase & 1)
                   : "memory");
#endif
    }
  }

  const LinearDecodeArgs& args_;
  Shared* shared_;
  int rank_, share_log2_;
};

}  // namespace billfish::cuda
