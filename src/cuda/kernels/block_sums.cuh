// How the sums of the warps become rows of y.
//
// The stretches of several warps may meet in a block of rows. The warp that begins the block finishes it: the others post their sums in
// slots of shared memory, it adds them to its own in the order of the warps. A warp that goes on with a block does so before all else, so
// that its sums are there long before they are wanted. Where a cluster has cut K, the CTAs take turns at owning blocks: the warps that
// finish a block elsewhere send the sums to its owner, who adds them to its own in the order of the CTAs. Every sum has one order, so every
// run gives the same bits; every place is written once, so nobody waits for room.
#pragma once

#include "cuda/kernels/cluster.cuh"
#include "cuda/kernels/linear_decode.cuh"
#include "cuda/kernels/shared_barrier.cuh"

namespace billfish::cuda {

/// A lane's accumulator of tile n of 16-row block rb (mma.cuh) is four sums, of tokens 2 p and 2 p + 1, p = lane % 4, of the tile. Only the
/// first pairs exist, where M < 7: fours go as [rb][n][lane / 4][pairs].
///
/// kTeam warps have a block side by side, each its own rows: what one posts or sends is for the warp of the same rows.
template <int kRowBlocks, int kTiles, int kWarps, int kTeam = 1>
class BlockSums {
 public:
  static constexpr int kRows = 16 * kRowBlocks;
  using Sums = float[kRowBlocks][kTiles][4];
  struct Shared {
    float row_scale[kWarps][kRows], bias[kWarps][kRows];  ///< of the block that the warp finishes next
    uint64_t posted[kWarps];                              ///< completes when that block has all posts, each lane's for itself
  };
  // Behind Shared: for each warp but those of the first team, who begin all that they go on with, a slot; for each block that this CTA owns
  // what the other CTAs send; for each block that this CTA owns a barrier, 16 bytes.

  static __device__ __forceinline__ int Bytes(const LinearDecodeArgs& args, int blocks) {
    const int others = (1 << args.splits_log2) - 1, owned = (blocks + others) >> args.splits_log2;
    return static_cast<int>(sizeof(Shared)) + (kWarps - kTeam + owned * kTeam * others) * Fours(args) * 16 +
           (others > 0 ? owned * kTeam * 16 : 0);
  }

  __device__ __forceinline__ BlockSums(const LinearDecodeArgs& args, Shared* shared, int rank, const Blocks& blocks)
      : args_(args),
        shared_(shared),
        slots_(reinterpret_cast<float4*>(shared + 1)),
        fours_(Fours(args)),
        rank_(rank),
        first_block_(blocks.first),
        owned_((blocks.count + (1 << args.splits_log2) - 1 - rank) >> args.splits_log2),
        most_owned_((blocks.count + (1 << args.splits_log2) - 1) >> args.splits_log2) {}

  /// The barriers, and that this CTA runs. `stretch` is the warp's.
  __device__ __forceinline__ void Begin(const Stretch<kWarps / kTeam>& stretch, int steps, int warp, int lane) {
    // Of the last block that the warp begins, if it does not end it.
    const int block = Quotient(stretch.end, steps);
    if (block * steps >= stretch.begin && block * steps < stretch.end) {
      posts_ = stretch.TeamAt((block + 1) * steps - 1) - warp / kTeam;
      if (lane == 0) InitBarrier(&shared_->posted[warp], 32 * posts_);
    }
#if __CUDA_ARCH__ >= 900
    if (args_.splits_log2 > 0 && lane == 0) {
      const int others = (1 << args_.splits_log2) - 1;
#pragma unroll 1
      for (int i = warp; i < owned_ * kTeam; i += kWarps) {
        InitBarrier(SentBarrier(i), 1);
        ArriveExpecting(SharedAddress(SentBarrier(i)), static_cast<uint32_t>(others * fours_ * 16));
      }
    }
    __syncwarp();
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
  }

  /// Before the first sums: that the barriers are there and the other CTAs run.
  __device__ __forceinline__ void WaitBegun() const {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
#endif
  }

  /// The warp goes on with a block that warp `finisher` has begun.
  __device__ __forceinline__ void Post(int finisher, int warp, int lane, const Sums& v) const {
    if (HasSums(lane)) {
      float4* to = slots_ + (warp - kTeam) * fours_ + Place(lane);
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          to[(rb * kTiles + n) * TileFours()] = float4{v[rb][n][0], v[rb][n][1], v[rb][n][2], v[rb][n][3]};
        }
      }
    }
    Arrive(SharedAddress(&shared_->posted[finisher]));
  }

  /// The warp begins block number `block` of the cluster's: brings what its rows are multiplied with and what is added, with the next group
  /// of copies.
  __device__ __forceinline__ void Start(int block, int warp, int lane) const {
    __syncwarp();  // the last block is through with what is overwritten
    constexpr int kChunks = kRows / 4;
    const int row = FirstRow(block, warp) + lane % kChunks * 4;
    if (lane < kChunks && args_.row_scale != nullptr) {
      CopyAsync16(SharedAddress(&shared_->row_scale[warp][lane * 4]), args_.row_scale + row);
    } else if (lane >= kChunks && lane < 2 * kChunks && args_.bias != nullptr) {
      CopyAsync16(SharedAddress(&shared_->bias[warp][lane % kChunks * 4]), args_.bias + row);
    }
  }

  /// The warp has begun block number `block` of the cluster's and been through its steps, or as many as it has; the group of copies after
  /// Start has come.
  __device__ __forceinline__ void Finish(int block, bool ended, int warp, int lane, Sums& v) const {
    if (!ended) {
      Await(&shared_->posted[warp], 0);
#pragma unroll 4
      for (int i = 0; i < posts_; ++i) Add(slots_ + (warp + i * kTeam) * fours_, lane, v);
    }
    if (args_.splits_log2 > 0) {
      const int mask = (1 << args_.splits_log2) - 1, owner = block & mask;
      const int index = (block >> args_.splits_log2) * kTeam + warp % kTeam;
      if (owner != rank_) {
        Send(owner, index, lane, v);
        return;
      }
      Await(SentBarrier(index), 0);
#pragma unroll 1
      for (int i = 0; i < mask; ++i) Add(Sent(index * mask + i), lane, v);
    }
    Store(block, warp, lane, v);
  }

 private:
  static __device__ __forceinline__ int Pairs(const LinearDecodeArgs& args) { return min((args.M + 1) / 2, 4); }
  static __device__ __forceinline__ int Fours(const LinearDecodeArgs& args) { return kRowBlocks * kTiles * 8 * Pairs(args); }
  __device__ __forceinline__ int TileFours() const { return 8 * Pairs(args_); }
  __device__ __forceinline__ bool HasSums(int lane) const { return lane % 4 < Pairs(args_); }
  __device__ __forceinline__ int Place(int lane) const { return lane / 4 * Pairs(args_) + lane % 4; }

  __device__ __forceinline__ int FirstRow(int block, int warp) const { return ((first_block_ + block) * kTeam + warp % kTeam) * kRows; }

  __device__ __forceinline__ float4* Sent(int number) const { return slots_ + (kWarps - kTeam + number) * fours_; }
  __device__ __forceinline__ uint64_t* SentBarrier(int index) const {
    return reinterpret_cast<uint64_t*>(Sent(most_owned_ * kTeam * ((1 << args_.splits_log2) - 1))) + index;
  }

  __device__ __forceinline__ void Add(const float4* from, int lane, Sums& v) const {
    if (!HasSums(lane)) return;
    from += Place(lane);
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const float4 more = from[(rb * kTiles + n) * TileFours()];
        v[rb][n][0] += more.x, v[rb][n][1] += more.y, v[rb][n][2] += more.z, v[rb][n][3] += more.w;
      }
    }
  }

  __device__ __forceinline__ void Send(int owner, int index, int lane, const Sums& v) const {
#if __CUDA_ARCH__ >= 900
    if (!HasSums(lane)) return;
    const int others = (1 << args_.splits_log2) - 1;
    const uint32_t to = AddressInBlock(Sent(index * others + rank_ - (rank_ > owner ? 1 : 0)) + Place(lane), owner);
    const uint32_t barrier = AddressInBlock(SentBarrier(index), owner);
#pragma unroll
    for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1,%2,%3,%4}, [%5];" ::"r"(
                         to + (rb * kTiles + n) * TileFours() * 16),
                     "f"(v[rb][n][0]), "f"(v[rb][n][1]), "f"(v[rb][n][2]), "f"(v[rb][n][3]), "r"(barrier)
                     : "memory");
      }
    }
#endif
  }

  __device__ __forceinline__ void Store(int block, int warp, int lane, Sums& v) const {
    __syncwarp();
    const int row = lane / 4, first = FirstRow(block, warp) + row;
    if (args_.row_scale != nullptr || args_.bias != nullptr) {
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = rb * 16 + half * 8 + row;
          const float factor = args_.row_scale != nullptr ? shared_->row_scale[warp][at] : 1.0f;
          const float bias = args_.bias != nullptr ? shared_->bias[warp][at] : 0.0f;
#pragma unroll
          for (int i = 0; i < 2 * kTiles; ++i) {
            float& sum = v[rb][i / 2][2 * half + i % 2];
            sum = fmaf(sum, factor, bias);
          }
        }
      }
    }
    const int token = lane % 4 * 2;
    const int64_t at = token * args_.y_stride + first;
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      const int more = i / 2 * 8 + i % 2;
      if (token + more < args_.M) StoreToken(at + more * args_.y_stride, args_.N - first, v, i);
    }
  }

  // Of one token the features from `at` on that the lane has sums of, every eighth, below `left`; i counts its tokens.
  __device__ __forceinline__ void StoreToken(int64_t at, int left, const Sums& v, int i) const {
    const int n = i / 2, low = i % 2;
    asm volatile("" : "+l"(at));  // to be computed once, not for each store
    if (args_.out == OutType::kF32) {
      float* y = static_cast<float*>(args_.y) + at;
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
        if (rb * 16 < left) y[rb * 16] = v[rb][n][low];
        if (rb * 16 + 8 < left) y[rb * 16 + 8] = v[rb][n][low + 2];
      }
    } else {
      uint16_t* y = static_cast<uint16_t*>(args_.y) + at;
#pragma unroll
      for (int rb = 0; rb < kRowBlocks; ++rb) {
        const float a = v[rb][n][low], b = v[rb][n][low + 2];
        const uint32_t pair = args_.out == OutType::kBF16 ? BF16PairFromFloats(a, b) : F16PairFromFloats(a, b);
        if (rb * 16 < left) y[rb * 16] = static_cast<uint16_t>(pair & 0xffffu);
        if (rb * 16 + 8 < left) y[rb * 16 + 8] = static_cast<uint16_t>(pair >> 16);
      }
    }
  }

  const LinearDecodeArgs& args_;
  Shared* shared_;
  float4* slots_;
  int fours_, rank_, first_block_, owned_, most_owned_, posts_ = 0;
};

}  // namespace billfish::cuda
