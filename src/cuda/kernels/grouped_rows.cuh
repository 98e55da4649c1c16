// The rows of x of a round of the kernel w4a16_grouped_stream, in shared memory, one behind the other in the order of its tiles: the
// columns of the round's steps, zeros beyond K.
//
// Where the copy engine can do it (sm_90, rows that may be read 16 bytes at a time), one warp asks for the rows. Else all threads copy and
// wait for each other.
#pragma once

#include "cuda/kernels/grouped_walk.cuh"
#include "cuda/kernels/shared_barrier.cuh"

namespace billfish::cuda {

template <int kThreads>
class TileRowsOfX {
 public:
  /// rows: room for args.x_rows rows of args.x_row_bytes.
  __device__ __forceinline__ TileRowsOfX(const GroupedDecodeArgs& args, uint64_t* arrived, uint8_t* rows)
      : args_(args), arrived_(arrived), rows_(rows), base_(SharedAddress(rows)) {
#if __CUDA_ARCH__ >= 900
    bulk_ = args.x_aligned != 0;
#endif
  }

  /// Before a barrier of the whole CTA: what does not depend on x.
  __device__ __forceinline__ void Begin() const {
    if (bulk_ && threadIdx.x == 0) InitBarrier(arrived_, 32);
  }

  /// Once x is there and the rows of the round before are no longer read, by all threads.
  template <int kColumns>
  __device__ __forceinline__ void Copy(const StreamLine& line, const Round& round) const {
    const int k0 = round.first_step * kColumns, chunks = round.steps * (kColumns / 8);
    const int first = ItemAt(line, round.first_item).tile, end = ItemAt(line, round.end_item - 1).tile + 1;
#if __CUDA_ARCH__ >= 900
    if (bulk_) {
      if (threadIdx.x < 32) CopyInBulk(line, first, end, k0, chunks);
      return;
    }
#endif
    int at = 0;
#pragma unroll 1
    for (int t = first; t < end; ++t) {
      const TileWork work = line.tiles[t];
#pragma unroll 1
      for (int r = 0; r < work.rows; ++r, ++at) {
        CopyRow(at, RowOf(line, work.first_row + r), k0, chunks);
      }
    }
    CommitCopies();
    WaitCopies<0>();
    __syncthreads();
  }

  /// Returns once the rows of round number `turn` are there.
  __device__ __forceinline__ void Await(int turn) const {
    if (bulk_) billfish::cuda::Await(arrived_, turn);
  }

  __device__ __forceinline__ uint32_t Address(int row) const { return base_ + row * args_.x_row_bytes; }

 private:
  __device__ __forceinline__ const uint16_t* RowOf(const StreamLine& line, int sorted) const {
    const int row = line.tokens != nullptr   ? line.tokens[sorted - line.tiles[0].first_row]
                    : line.source == nullptr ? sorted
                                             : line.source[sorted];
    return static_cast<const uint16_t*>(args_.x) + row * args_.x_stride;
  }

  // `chunks` times 8 columns from k0 on, by all threads.
  __device__ __forceinline__ void CopyRow(int at, const uint16_t* from, int k0, int chunks) const {
#pragma unroll 1
    for (int chunk = threadIdx.x; chunk < chunks; chunk += kThreads) {
      const uint32_t to = base_ + at * args_.x_row_bytes + chunk * 16;
      const int k = k0 + chunk * 8;
      if (args_.x_aligned != 0) {
        CopyAsync16Zeroed(to, from + (k < args_.K ? k : 0), k < args_.K ? 16 : 0);
      } else {
        CopyUnaligned(to, from + k, args_.K - k);
      }
    }
  }

#if __CUDA_ARCH__ >= 900
  // Of each row `chunks` times 8 columns from k0 on.
  __device__ __forceinline__ void CopyInBulk(const StreamLine& line, int first, int end, int k0, int chunks) const {
    const int lane = static_cast<int>(threadIdx.x), valid = min(max((args_.K - k0 + 7) / 8, 0), chunks);
    const uint32_t barrier = SharedAddress(arrived_), bytes = static_cast<uint32_t>(valid) * 16;
    int rows = 0;
    for (int t = first; t < end; ++t) rows += line.tiles[t].rows;
    for (int i = lane; i < rows * (chunks - valid); i += 32) {
      const int row = i / (chunks - valid), chunk = valid + i % (chunks - valid);
      *reinterpret_cast<uint4*>(rows_ + row * args_.x_row_bytes + chunk * 16) = uint4{0, 0, 0, 0};
    }
    // Each lane for the zeros that it wrote, the first for the copies, too, before any is asked for.
    if (lane == 0) {
      ArriveExpecting(barrier, bytes * static_cast<uint32_t>(rows));
    } else {
      Arrive(barrier);
    }
    __syncwarp();
    if (valid == 0) return;
    uint32_t to = base_;
#pragma unroll 1
    for (int t = first; t < end; ++t) {
      const TileWork work = line.tiles[t];
      if (lane < work.rows) CopyBulk(to + lane * args_.x_row_bytes, RowOf(line, work.first_row + lane) + k0, bytes, barrier);
      to += work.rows * args_.x_row_bytes;
    }
  }
#endif

  const GroupedDecodeArgs& args_;
  uint64_t* arrived_;
  uint8_t* rows_;
  uint32_t base_;
  bool bulk_ = false;
};

}  // namespace billfish::cuda
