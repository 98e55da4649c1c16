// The parts of the dense decode kernel beside its arithmetic: how the items and units of a matrix are dealt out to warps, the rings that
// bring the units, and how the warps' sums become rows of y. w4a16_linear_decode_sm80.cu has the overview.
#pragma once

#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/weight.cuh"
#include "cuda/linear_decode_args.h"

namespace billfish::cuda {

inline constexpr int kUnitK = kLayout.unit_k(), kUnitBlocks = kUnitK / kBlockK;
inline constexpr int kRowChunks = kUnitK / 8;  // 16-byte chunks of a unit's columns in a row of x
/// Units that a warp takes at a time: enough work to make up for going on to the next.
inline constexpr int kStepUnits = LinearDecodeStepUnits(kLayout);

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

/// The items and units of a warp, in order. Items are the panels or equal parts of them; a group (kWarps warps in each CTA of a cluster)
/// works on one at a time, its warps in CTA `rank` on the units first .. last - 1 in turn, kStepUnits at a time.
template <int kWarps, int kGroups, int kItemsOfPanel>
struct Walk {
  int item, unit, turn;
  const int items, groups, first, last, warp;

  __device__ __forceinline__ Walk(const LinearDecodeArgs& args, int rank, int group, int warp_)
      : item((static_cast<int>(blockIdx.x) >> args.splits_log2) + group * (static_cast<int>(gridDim.x) >> args.splits_log2)),
        unit(0),
        turn(0),
        items(args.panels * kItemsOfPanel),
        groups(kGroups * (static_cast<int>(gridDim.x) >> args.splits_log2)),
        first(static_cast<int>(static_cast<int64_t>(rank) * args.units >> args.splits_log2)),
        last(static_cast<int>(static_cast<int64_t>(rank + 1) * args.units >> args.splits_log2)),
        warp(warp_) {
    unit = FirstUnit();
  }
  __device__ __forceinline__ bool Done() const { return item >= items; }
  __device__ __forceinline__ void NextItem() {
    item += groups;
    ++turn;
    unit = FirstUnit();
  }
  // The warps take turns in being the first, so that none has the short end every time.
  __device__ __forceinline__ int FirstUnit() const { return first + (warp + turn) % kWarps * kStepUnits; }
};

/// What a warp copies into its ring: kRowBlocks row blocks of each of its units; a stage holds kStepUnits.
/// A unit is [slab][row block][lane] 16 bytes of codes, then the scales and zero points of these row blocks.
template <int kWarps, int kGroups, int kRowBlocks>
class Copier {
 public:
  static constexpr int kItemsOfPanel = 4 / kRowBlocks;
  using ItemWalk = Walk<kWarps, kGroups, kItemsOfPanel>;
  static constexpr int kSlabBytes = kTileThreads * 16, kSlabs = kLayout.code_bytes() / kSlabBytes;
  static constexpr int kCodeBytes = kSlabs * kRowBlocks * 512;
  // LoadRowScales finds zero points behind the scales of all four row blocks.
  static constexpr int kScaleBytes = kLayout.zeros ? kLayout.scale_bytes() : kLayout.scale_bytes() * kRowBlocks / 4;
  static constexpr int kUnitBytes = (kCodeBytes + kScaleBytes + kLayout.zero_bytes() * kRowBlocks / 4 + 15) / 16 * 16;

  __device__ __forceinline__ Copier(const LinearDecodeArgs& args, const ItemWalk& walk, int lane)
      : args_(args), walk_(walk), lane_(lane), policy_(EvictFirst()) {
    Settle();
  }

  __device__ __forceinline__ bool Done() const { return walk_.Done(); }
  __device__ __forceinline__ int unit() const { return walk_.unit; }

  /// Call while not Done, before Advance.
  __device__ __forceinline__ void CopyWeights(uint32_t stage) const {
    stage += lane_ * 16;
    CopyUnit(stage, 0);
#pragma unroll
    for (int u = 1; u < kStepUnits; ++u) {
      if (walk_.unit + u < walk_.last) CopyUnit(stage + u * kUnitBytes, u * kLayout.unit_bytes());
    }
  }

  __device__ __forceinline__ void Advance() {
    constexpr int kStep = kWarps * kStepUnits;
    walk_.unit += kStep;
    from_ += kStep * kLayout.unit_bytes(), scales_ += kStep * kLayout.unit_bytes(), zeros_ += kStep * kLayout.unit_bytes();
    if (walk_.unit < walk_.last) return;
    walk_.NextItem();
    Settle();
  }

 private:
  __device__ __forceinline__ void CopyUnit(uint32_t to, int offset) const {
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
        CopyAsync16(to + (slab * kRowBlocks + rb) * 512, from_ + offset + slab * kSlabBytes + rb * 512, policy_);
      }
    }
    CopyFew<kLayout.scale_bytes() / 4>(to + kCodeBytes, scales_ + offset);
    CopyFew<kLayout.zero_bytes() / 4>(to + kCodeBytes + kScaleBytes, zeros_ + offset);
  }

  // To the next unit that exists: a slice may have fewer units than there are warps, or none.
  __device__ __forceinline__ void Settle() {
    while (!walk_.Done() && walk_.unit >= walk_.last) {
      if (walk_.first >= walk_.last) walk_.item = walk_.items;
      if (!walk_.Done()) walk_.NextItem();
    }
    const int block = walk_.item % kItemsOfPanel * kRowBlocks;
    const int64_t unit = static_cast<int64_t>(walk_.item / kItemsOfPanel) * args_.units + walk_.unit;
    const uint8_t* from = args_.weight + unit * kLayout.unit_bytes() + lane_ * 16;
    from_ = from + block * 512;
    scales_ = from + kLayout.code_bytes() + block * (kLayout.scale_bytes() / 4);
    zeros_ = from + kLayout.code_bytes() + kLayout.scale_bytes() + block * (kLayout.zero_bytes() / 4);
  }

  // kBytes of each row block.
  template <int kBytes>
  __device__ __forceinline__ void CopyFew(uint32_t to, const uint8_t* from) const {
    constexpr int kChunks = kBytes * kRowBlocks / 16;
#pragma unroll
    for (int i = 0; i < (kChunks + 31) / 32; ++i) {
      if (i * 32 + lane_ < kChunks) CopyAsync16(to + i * 512, from + i * 512, policy_);
    }
  }

  const LinearDecodeArgs& args_;
  ItemWalk walk_;
  int lane_;
  uint64_t policy_;
  // This lane's place in the codes of the first row block, in the scales and in the zero points.
  const uint8_t *from_ = nullptr, *scales_ = nullptr, *zeros_ = nullptr;
};

/// Goes round a ring of stages in shared memory.
template <int kStages, int kStageBytes>
struct RingPlace {
  uint32_t offset = 0;
  __device__ __forceinline__ void Advance() { offset = offset == (kStages - 1) * kStageBytes ? 0 : offset + kStageBytes; }
};

/// Where the sums of an item meet on their way from the warps to y. Sum f = ((row block * kTiles + tile) * 32 + lane) * 4 + j is number
/// j of that lane's accumulator of that tile (mma.cuh). CTA c of the cluster finishes the c-th part of them; each warp of each CTA has a
/// slot there. Sums are added in the order of the slots.
///
/// Item number `turn` of a group has buffer turn % kBuffers. `full` of a buffer completes when every warp of the group in this CTA has
/// arrived and every byte from the others has; `empty` when every CTA has read what it needed. A cluster-wide barrier would do both, but it
/// makes each warp wait until all its copies and stores are done, and the rings would run dry.
template <int kRowBlocks, int kTiles, int kWarps, int kBuffers>
class Reduction {
 public:
  static constexpr int kRows = 16 * kRowBlocks, kCount = kRowBlocks * kTiles * 128;
  static_assert(2 * kRows <= 32 * kWarps, "a thread loads one factor or bias");
  struct Shared {
    float slots[kBuffers][kWarps * kCount];
    float factors[kBuffers][2 * kRows];  // row_scale, then bias
    uint64_t full[kBuffers], empty[kBuffers];
  };

  __device__ __forceinline__ Reduction(const LinearDecodeArgs& args, Shared* shared, int rank, int thread)
      : args_(args), shared_(shared), rank_(rank), thread_(thread), share_log2_(31 - __clz(kCount / 4) - args.splits_log2) {}

  /// First of all: the barriers, and that this CTA runs.
  __device__ __forceinline__ void Begin() {
    if (thread_ == 0) {
      for (int i = 0; i < kBuffers; ++i) {
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(&shared_->full[i])), "r"(kWarps) : "memory");
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(&shared_->empty[i])), "r"(1 << args_.splits_log2) : "memory");
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
    const int t = thread_;
    if (t >= 2 * kRows) return 0.0f;
    const float* from = t < kRows ? args_.row_scale : args_.bias;
    if (from == nullptr) return t < kRows ? 1.0f : 0.0f;
    return __ldg(from + item * kRows + t % kRows);
  }

  /// A warp's sums of item number `turn`: WaitEmpty, Put for every block and tile, Sent.
  __device__ __forceinline__ void WaitEmpty(int turn) const {
    if (turn >= kBuffers) Wait(&shared_->empty[turn % kBuffers], turn / kBuffers - 1);
  }
  __device__ __forceinline__ void Put(int turn, int block, int tile, const float v[4]) const {
    const int f = (block * kTiles + tile) * 32 + thread_ % 32, cta = f >> share_log2_;
    const int at = ((rank_ * kWarps + thread_ / 32) << share_log2_) + f - (cta << share_log2_);
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
    if (thread_ < 2 * kRows) shared_->factors[turn % kBuffers][thread_] = factor;
    __syncwarp();
    if (thread_ % 32 != 0) return;
    const uint32_t full = SharedAddress(&shared_->full[turn % kBuffers]);
    if (thread_ == 0 && args_.splits_log2 > 0) {
#if __CUDA_ARCH__ >= 900
      const uint32_t bytes = static_cast<uint32_t>(((1 << args_.splits_log2) - 1) * kWarps * 16) << share_log2_;
      asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(full), "r"(bytes) : "memory");
#endif
    } else {
      asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(full) : "memory");
    }
  }

  /// Adds up and stores this CTA's part of item number `turn`. In the middle of the work one warp does it, another one each time, while
  /// the others go on; the last item is finished by all.
  __device__ __forceinline__ void Finish(int turn, int item, bool last, bool reused) const {
    const int warp = thread_ / 32;
    if (!last && warp != turn % kWarps) return;
    Wait(&shared_->full[turn % kBuffers], turn / kBuffers);
    const int first = last ? thread_ : thread_ % 32, step = last ? kWarps * 32 : 32;
    const int share = 1 << share_log2_;  // in fours
    const float4* slots = reinterpret_cast<const float4*>(shared_->slots[turn % kBuffers]);
    const float* factors = shared_->factors[turn % kBuffers];
    for (int e = first; e < share; e += step) {
      const float4* from = slots + e;
      float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int s = 0; s < 1 << args_.splits_log2; ++s) {
#pragma unroll
        for (int i = 0; i < kWarps; ++i, from += share) {
          const float4 v = *from;
          sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
      }
      // Two tokens of two rows.
      const int f = (rank_ << share_log2_) + e, lane = f % 32, block = f / 32;
      const int row = block / kTiles * 16 + lane / 4, token = block % kTiles * 8 + lane % 4 * 2;
      const float low = factors[row], high = factors[row + 8], low_bias = factors[kRows + row], high_bias = factors[kRows + row + 8];
      const int n = item * kRows + row;
      Store(token, n, fmaf(sum.x, low, low_bias), fmaf(sum.z, high, high_bias));
      Store(token + 1, n, fmaf(sum.y, low, low_bias), fmaf(sum.w, high, high_bias));
    }
    if (!reused) return;  // the other CTAs may be gone
    __syncwarp();
    const int cta = thread_ % 32;
    if (cta >> args_.splits_log2 != 0) return;
    uint64_t* empty = &shared_->empty[turn % kBuffers];
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(AddressIn(empty, cta)) : "memory");
#else
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(SharedAddress(empty)) : "memory");
#endif
  }

 private:
  // Features n and n + 8 of a token.
  __device__ __forceinline__ void Store(int token, int n, float low, float high) const {
    if (token >= args_.M) return;
    const int64_t at = token * args_.y_stride + n;
    if (args_.out == OutType::kF32) {
      float* y = static_cast<float*>(args_.y) + at;
      if (n < args_.N) y[0] = low;
      if (n + 8 < args_.N) y[8] = high;
    } else {
      const uint32_t pair = args_.out == OutType::kBF16 ? BF16PairFromFloats(low, high) : F16PairFromFloats(low, high);
      uint16_t* y = static_cast<uint16_t*>(args_.y) + at;
      if (n < args_.N) y[0] = static_cast<uint16_t>(pair & 0xffffu);
      if (n + 8 < args_.N) y[8] = static_cast<uint16_t>(pair >> 16);
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
  int rank_, thread_, share_log2_;
};

}  // namespace billfish::cuda
