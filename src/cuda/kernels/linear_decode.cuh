// The parts of the dense decode kernel beside its arithmetic: what a CTA has of K, and how the warps' sums become rows of y.
// w4a16_linear_decode_sm80.cu has the overview.
#pragma once

#include "cuda/kernels/cluster.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/shared_barrier.cuh"
#include "cuda/kernels/weight.cuh"
#include "cuda/linear_decode_args.h"

namespace billfish::cuda {

/// Units of a step, which a warp takes at a time: enough work to make up for going on to the next.
inline constexpr int kStepUnits = LinearDecodeStepUnits(kLayout);
inline constexpr int kStepK = kStepUnits * kUnitK, kStepBytes = kStepUnits * kLayout.unit_bytes();

/// What CTA `rank` of a cluster has of each item: a slice of the steps of K, [first, first + count). Step s of its items goes to warp
/// (turn * count + s) mod kWarps: every warp has the same number of steps, give or take one, whatever count is.
struct Slice {
  int first, count;
  __device__ __forceinline__ Slice(const LinearDecodeArgs& args, int rank) {
    const int steps = (args.units + kStepUnits - 1) / kStepUnits;
    first = static_cast<int>(static_cast<int64_t>(rank) * steps >> args.splits_log2);
    count = static_cast<int>(static_cast<int64_t>(rank + 1) * steps >> args.splits_log2) - first;
  }
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
  struct Shared {
    float slots[kBuffers][kWarps * kCount];
    uint64_t full[kBuffers], empty[kBuffers];
  };

  __device__ __forceinline__ Reduction(const LinearDecodeArgs& args, Shared* shared, int rank, int thread)
      : args_(args), shared_(shared), rank_(rank), thread_(thread), share_log2_(31 - __clz(kCount / 4) - args.splits_log2) {}

  /// First of all: the barriers, and that this CTA runs.
  __device__ __forceinline__ void Begin() {
    if (thread_ == 0) {
      for (int i = 0; i < kBuffers; ++i) {
        InitBarrier(&shared_->full[i], kWarps);
        InitBarrier(&shared_->empty[i], 1 << args_.splits_log2);
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

  /// A warp's sums of item number `turn`, once its buffer is empty.
  __device__ __forceinline__ void Send(int turn, const float (&v)[kRowBlocks][kTiles][4]) const {
    const int buffer = turn % kBuffers;
    if (turn >= kBuffers) Await(&shared_->empty[buffer], turn / kBuffers - 1);
    const uint32_t full = SharedAddress(&shared_->full[buffer]);
    if (args_.splits_log2 == 0) {
      float4* to = reinterpret_cast<float4*>(shared_->slots[buffer]) + thread_ / 32 * (kCount / 4) + thread_ % 32;
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) to[(rb * kTiles + n) * 32] = float4{v[rb][n][0], v[rb][n][1], v[rb][n][2], v[rb][n][3]};
      }
    } else {
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) Put(buffer, (rb * kTiles + n) * 32 + thread_ % 32, v[rb][n]);
      }
    }
    __syncwarp();
    if (thread_ % 32 != 0) return;
#if __CUDA_ARCH__ >= 900
    if (thread_ == 0 && args_.splits_log2 > 0) {
      ArriveExpecting(full, static_cast<uint32_t>(((1 << args_.splits_log2) - 1) * kWarps * 16) << share_log2_);
      return;
    }
#endif
    Arrive(full);
  }

  /// Adds up and stores this CTA's part of item number `turn`. In the middle of the work one warp does it, another one each time, while
  /// the others go on; the last item is finished by all.
  __device__ __forceinline__ void Finish(int turn, int item, bool last, bool reused) const {
    const int warp = thread_ / 32, buffer = turn % kBuffers;
    if (!last && warp != turn % kWarps) return;
    const int first = last ? thread_ : thread_ % 32, step = last ? kWarps * 32 : 32;
    const int share = 1 << share_log2_;  // in fours
    bool waits = true;
#pragma unroll 1
    for (int e = first; e < share; e += step) {
      // Two tokens of two rows.
      const int f = (rank_ << share_log2_) + e, lane = f % 32, block = f / 32;
      const int n = item * kRows + block / kTiles * 16 + lane / 4, token = block % kTiles * 8 + lane % 4 * 2;
      float low = 1.0f, high = 1.0f, low_bias = 0.0f, high_bias = 0.0f;
      if (args_.row_scale != nullptr) low = __ldg(args_.row_scale + n), high = __ldg(args_.row_scale + n + 8);
      if (args_.bias != nullptr) low_bias = __ldg(args_.bias + n), high_bias = __ldg(args_.bias + n + 8);
      if (waits) Await(&shared_->full[buffer], turn / kBuffers);
      waits = false;
      const float4* from = reinterpret_cast<const float4*>(shared_->slots[buffer]) + e;
      float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int s = 0; s < 1 << args_.splits_log2; ++s) {
#pragma unroll
        for (int i = 0; i < kWarps; ++i, from += share) {
          const float4 v = *from;
          sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
      }
      Store(token, n, fmaf(sum.x, low, low_bias), fmaf(sum.z, high, high_bias));
      Store(token + 1, n, fmaf(sum.y, low, low_bias), fmaf(sum.w, high, high_bias));
    }
    if (!reused) return;  // the other CTAs may be gone
    __syncwarp();
    const int cta = thread_ % 32;
    if (cta >> args_.splits_log2 != 0) return;
    uint64_t* empty = &shared_->empty[buffer];
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(AddressInBlock(empty, cta)) : "memory");
#else
    Arrive(SharedAddress(empty));
#endif
  }

 private:
  // Four sums, number f in fours, to the CTA that finishes them.
  __device__ __forceinline__ void Put(int buffer, int f, const float v[4]) const {
    const int cta = f >> share_log2_, at = ((rank_ * kWarps + thread_ / 32) << share_log2_) + f - (cta << share_log2_);
    float4* to = reinterpret_cast<float4*>(shared_->slots[buffer]) + at;
    if (cta == rank_) {
      *to = float4{v[0], v[1], v[2], v[3]};
      return;
    }
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1,%2,%3,%4}, [%5];" ::"r"(AddressInBlock(to, cta)),
        "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(AddressInBlock(&shared_->full[buffer], cta))
        : "memory");
#endif
  }

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

  const LinearDecodeArgs& args_;
  Shared* shared_;
  int rank_, thread_, share_log2_;
};

}  // namespace billfish::cuda
