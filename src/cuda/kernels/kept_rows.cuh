// The rows of x that a CTA of the dense decode kernel keeps in shared memory: the columns of its slice of K, zeros beyond K.
//
// A few kilobytes are brought by all threads at once, through registers. Of more the copy engine (sm_90) brings parts of the columns, and
// the warps of the CTA begin with the parts that have come. Where addresses are no multiples of 16 bytes, or there is no engine, all
// threads copy row by row.
#pragma once

#include "cuda/kernels/linear_decode.cuh"
#include "cuda/kernels/shared_barrier.cuh"

namespace billfish::cuda {

template <int kWarps>
class KeptRows {
  static constexpr int kParts = 4, kThreads = 32 * kWarps;
  static constexpr int kDirect = 2;  // chunks of 16 bytes a thread

 public:
  struct Shared {
    uint64_t arrived[kParts];
  };

  __device__ __forceinline__ KeptRows(const LinearDecodeArgs& args, const Slice& slice, Shared* shared, uint8_t* rows)
      : args_(args), slice_(slice), shared_(shared), rows_(rows) {
    const bool chunked = args.x_aligned != 0 && args.K % 8 == 0;
    direct_ = chunked && args.M * slice.count * (kStepK / 8) <= kDirect * kThreads;
#if __CUDA_ARCH__ >= 900
    bulk_ = chunked && !direct_;
#endif
    part_ = bulk_ ? (slice.count + kParts - 1) / kParts : slice.count;
    if (!bulk_) awaited_ = kAll;
  }

  /// Before a barrier of the whole CTA, and that before Copy: what does not depend on x.
  __device__ __forceinline__ void Begin() const {
    if (!bulk_) return;
    if (threadIdx.x % 32 == 0 && threadIdx.x < 32 * kParts) InitBarrier(&shared_->arrived[threadIdx.x / 32], 1);
    const int first = max(args_.K - slice_.first * kStepK, 0) / 8, chunks = slice_.count * (kStepK / 8);
    if (first >= chunks) return;
#pragma unroll 1
    for (int i = threadIdx.x; i < args_.M * (chunks - first); i += kThreads) {
      const int row = i / (chunks - first), chunk = first + i % (chunks - first);
      *reinterpret_cast<uint4*>(rows_ + row * args_.x_row_bytes + chunk * 16) = uint4{0, 0, 0, 0};
    }
    __syncthreads();
  }

  /// Once x is there, by all threads.
  __device__ __forceinline__ void Copy(int warp) {
    if (direct_) {
      CopyThroughRegisters();
      return;
    }
#if __CUDA_ARCH__ >= 900
    if (bulk_) {
      CopyInBulk(warp);
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

  /// Returns once the columns of step `step` are there: the step before which they end.
  __device__ __forceinline__ int Await(int step) {
    if (awaited_ == kAll) return slice_.count;
    const int part = (step >= part_ ? 1 : 0) + (step >= 2 * part_ ? 1 : 0) + (step >= 3 * part_ ? 1 : 0);
    cuda::Await(&shared_->arrived[part], 0);
    awaited_ |= 1 << part;
    return (part + 1) * part_;
  }

 private:
  static constexpr int kAll = (1 << kParts) - 1;

  // Every load is on its way before the first is waited for.
  __device__ __forceinline__ void CopyThroughRegisters() const {
    const int chunks = slice_.count * (kStepK / 8), k0 = slice_.first * kStepK;
    uint4 v[kDirect];
    uint8_t* to[kDirect];
#pragma unroll
    for (int j = 0; j < kDirect; ++j) {
      const int i = static_cast<int>(threadIdx.x) + j * kThreads, row = i / chunks, chunk = i - row * chunks, k = k0 + chunk * 8;
      v[j] = uint4{0, 0, 0, 0};
      to[j] = row < args_.M ? rows_ + row * args_.x_row_bytes + chunk * 16 : nullptr;
      if (row < args_.M && k < args_.K) {
        v[j] = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(args_.x) + row * args_.x_stride + k);
      }
    }
#pragma unroll
    for (int j = 0; j < kDirect; ++j) {
      if (to[j] != nullptr) *reinterpret_cast<uint4*>(to[j]) = v[j];
    }
    __syncthreads();
  }

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
  // A copy is asked for by one lane at a time: each warp asks for a row of its own.
  __device__ __forceinline__ void CopyInBulk(int warp) const {
    if (ElectLane()) {
      const int bytes = 2 * min(slice_.count * kStepK, max(args_.K - slice_.first * kStepK, 0));
      const uint16_t* x = static_cast<const uint16_t*>(args_.x) + slice_.first * kStepK;
      const uint32_t rows = SharedAddress(rows_), arrived = SharedAddress(shared_->arrived);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const int begin = min(part * part_ * kStepK * 2, bytes), size = min((part + 1) * part_ * kStepK * 2, bytes) - begin;
        if (warp == 0) ArriveExpecting(arrived + part * 8, static_cast<uint32_t>(size * args_.M));
        if (size == 0) continue;
#pragma unroll 1
        for (int row = warp; row < args_.M; row += kWarps) {
          const uint8_t* from = reinterpret_cast<const uint8_t*>(x + row * args_.x_stride) + begin;
          CopyBulk(rows + row * args_.x_row_bytes + begin, from, static_cast<uint32_t>(size), arrived + part * 8);
        }
      }
    }
    __syncwarp();
  }
#endif

  const LinearDecodeArgs& args_;
  const Slice& slice_;
  Shared* shared_;
  uint8_t* rows_;
  bool bulk_ = false, direct_;
  int part_;         ///< steps of a part
  int awaited_ = 0;  ///< a bit for each part that is known to be there
};

}  // namespace billfish::cuda
