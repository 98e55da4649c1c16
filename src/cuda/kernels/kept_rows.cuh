// The rows of x that a CTA of the dense decode kernel keeps in shared memory: the columns of its slice of K, zeros beyond K.
//
// Where the copy engine can do it (sm_90, addresses that are multiples of 16 bytes), one warp asks for the rows in parts of the columns,
// and the warps of the CTA begin with the parts that have come. Else all threads copy and wait for each other.
#pragma once

#include "cuda/kernels/linear_decode.cuh"
#include "cuda/kernels/shared_barrier.cuh"

namespace billfish::cuda {

/// A part holds the columns of the first, second ... step of each warp; the last one also those of all later steps.
template <int kWarps>
class KeptRows {
  static constexpr int kParts = 4, kThreads = 32 * kWarps, kEveryStep = 0x7fffffff;

 public:
  struct Shared {
    uint64_t arrived[kParts];
  };

  __device__ __forceinline__ KeptRows(const LinearDecodeArgs& args, const Slice& slice, Shared* shared, uint8_t* rows)
      : args_(args), slice_(slice), shared_(shared), rows_(rows) {
#if __CUDA_ARCH__ >= 900
    bulk_ = args.x_aligned != 0 && args.K % 8 == 0;
#endif
    awaited_ = bulk_ ? 0 : kEveryStep;
  }

  /// Before a barrier of the whole CTA: what does not depend on x.
  __device__ __forceinline__ void Begin() const {
    if (!bulk_) return;
    if (threadIdx.x < kParts) InitBarrier(&shared_->arrived[threadIdx.x], 1);
    const int first = max(args_.K - slice_.first * kStepK, 0) / 8, chunks = slice_.count * (kStepK / 8);
    if (first >= chunks) return;
    for (int i = threadIdx.x; i < args_.M * (chunks - first); i += kThreads) {
      const int row = i / (chunks - first), chunk = first + i % (chunks - first);
      *reinterpret_cast<uint4*>(rows_ + row * args_.x_row_bytes + chunk * 16) = uint4{0, 0, 0, 0};
    }
    __syncthreads();
  }

  /// Once x is there, by all threads.
  __device__ __forceinline__ void Copy() {
#if __CUDA_ARCH__ >= 900
    if (bulk_) {
      if (threadIdx.x < 32) CopyInBulk();
      return;
    }
#endif
    const int chunks = slice_.count * (kStepK / 8), k0 = slice_.first * kStepK;
#pragma unroll 1
    for (int row = 0; row < args_.M; ++row) {
#pragma unroll 1
      for (int chunk = threadIdx.x; chunk < chunks; chunk += kThreads) {
        uint8_t* at = rows_ + row * args_.x_row_bytes + chunk * 16;
        const int k = k0 + chunk * 8;
        if (args_.x_aligned != 0) {
          const uint16_t* from = static_cast<const uint16_t*>(args_.x) + row * args_.x_stride;
          const int valid = min(max(args_.K - k, 0), 8);
          CopyAsync16Zeroed(SharedAddress(at), from + (valid > 0 ? k : 0), valid * 2);
        } else {
          *reinterpret_cast<uint4*>(at) = LoadColumns(row, k);
        }
      }
    }
    CommitCopies();
    WaitCopies<0>();
    __syncthreads();
  }

  /// Returns once the columns of a step of this warp are there. Its first steps are of the first part, then of the second, and so on.
  __device__ __forceinline__ void AwaitStep(int step) {
    if (step < awaited_) return;
    const int part = awaited_ / kWarps;
    Await(&shared_->arrived[part], 0);
    awaited_ = part + 1 < kParts ? awaited_ + kWarps : kEveryStep;
  }

 private:
  // Columns k .. k + 7 of a row of x at any alignment; zero beyond K.
  __device__ __forceinline__ uint4 LoadColumns(int row, int k) const {
    const uint16_t* from = static_cast<const uint16_t*>(args_.x) + row * args_.x_stride + k;
    uint32_t v[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      v[j] = (k + 2 * j < args_.K ? from[2 * j] : 0u) | (k + 2 * j + 1 < args_.K ? static_cast<uint32_t>(from[2 * j + 1]) << 16 : 0u);
    }
    return uint4{v[0], v[1], v[2], v[3]};
  }

#if __CUDA_ARCH__ >= 900
  __device__ __forceinline__ void CopyInBulk() const {
    const int columns = min(slice_.count * kStepK, max(args_.K - slice_.first * kStepK, 0));
    // Each CTA begins with another row: all read the same ones, and not all at the same time from the same place.
    const int lane = static_cast<int>(threadIdx.x), row = (lane + static_cast<int>(blockIdx.x)) % args_.M;
    const uint16_t* from = static_cast<const uint16_t*>(args_.x) + row * args_.x_stride + slice_.first * kStepK;
#pragma unroll 1
    for (int part = 0; part < kParts; ++part) {
      const int begin = min(part * kWarps * kStepK, columns);
      const uint32_t bytes = ((part + 1 < kParts ? min(begin + kWarps * kStepK, columns) : columns) - begin) * 2;
      const uint32_t barrier = SharedAddress(&shared_->arrived[part]);
      if (lane == 0) ArriveExpecting(barrier, bytes * args_.M);
      __syncwarp();
      if (lane < args_.M && bytes > 0) CopyBulk(SharedAddress(rows_) + row * args_.x_row_bytes + begin * 2, from + begin, bytes, barrier);
    }
  }
#endif

  const LinearDecodeArgs& args_;
  const Slice& slice_;
  Shared* shared_;
  uint8_t* rows_;
  bool bulk_ = false;
  int awaited_;  ///< steps below this one may begin
};

}  // namespace billfish::cuda
