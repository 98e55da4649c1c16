// The warpgroup of a tile kernel on sm_90a that brings the stages of shared memory: x and weight of kStageUnits units of K each.
//
//   x       64 columns at a time, [token][128 bytes], 16-byte chunk c of a row at c ^ (token % 8), which is the 128-byte swizzle of wgmma.
//           Dense: one box of a tensor, zeros beyond it. Grouped: by cp.async, since the rows of a tile may come from anywhere; columns
//           beyond K are zeros, rows that no row of the tile is behind are whatever is there: they touch sums that are not stored alone.
//           What cp.async writes wgmma sees behind a fence of the reader: one of the writer would wait for all that is under way.
//   weight  the units of each of the tile's panels as they lie in memory: one bulk copy a panel. Copies are issued one by one, a hundred
//           cycles each, so that the warps share them
//
// The feeder waits for `empty` of a slot, and its copies arrive at `full`. It knows nothing of tiles' ends but what it copies, so that the
// first stages of the next tile arrive while the last one is being stored.
#pragma once

#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/shared_barrier.cuh"
#include "cuda/kernels/tile_shape.cuh"

namespace billfish::cuda {

/// full[s] has arrived once the stage may be read, empty[s] once nobody reads it any more.
struct StageBarriers {
  uint64_t full[kStages], empty[kStages];
};

/// Where a role is in its walk around the slots.
struct StageTurn {
  int slot = 0, round = 0;
  __device__ __forceinline__ void Advance(int stages) {
    if (++slot == stages) slot = 0, ++round;
  }
};

inline constexpr int kFeedThreads = 128, kBlockThreads = kThreads + kFeedThreads;

// Registers of a thread, in steps of 8. What the copies give back the other warpgroups may take, and no more: a block has what it was
// launched with.
inline constexpr int kLaunchRegisters = 65536 / (BF_MIN_CTAS * kBlockThreads) / 8 * 8, kFeedRegisters = 32;
inline constexpr int kSharedRegisters = (kLaunchRegisters * (kBlockThreads / 128) - kFeedRegisters) / (kThreads / 128) / 8 * 8;
inline constexpr int kMathRegisters = kSharedRegisters < 240 ? kSharedRegisters : 240;

/// Returns when the stage may be read, by wgmma too.
__device__ __forceinline__ void AwaitFull(const StageBarriers& barriers, const StageTurn& turn) {
  Await(&barriers.full[turn.slot], turn.round);
  if (BF_GROUPED) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

class TileFeed {
  static constexpr int kWarps = kFeedThreads / 32;
  static constexpr int kRowsAtOnce = kFeedThreads / 8, kRowParts = kTokens / kRowsAtOnce;
  static constexpr int kPanelBytes = kStageUnits * kUnitBytes;

 public:
  /// What completes a phase of `full`, beside the bulk copies: the copies of x of each thread of a grouped kernel, and the first thread.
  static constexpr int kArrivals = BF_GROUPED ? kFeedThreads + 1 : 1;

  __device__ TileFeed(const LinearTileArgs& args, uint8_t* shared, int32_t* rows, StageBarriers* barriers)
      : a_(args),
        shared_(shared),
        row_of_(rows),
        barriers_(barriers),
        thread_(threadIdx.x % kFeedThreads),
        warp_(__shfl_sync(~0u, thread_ / 32, 0)) {}

  /// The only tile of a dense kernel. The first warp brings the boxes of x, the others the weight, which comes before the kernel's
  /// predecessor has ended, that may write x.
  __device__ void RunDense(const Tile& tile, const TensorMap* x) {
    const bool boxes = a_.x_aligned;
    if (boxes && warp_ > a_.tile_panels) return;  // nobody would wait for it: `empty` could get two rounds ahead
    if (warp_ > 0) {
#pragma unroll 1
      for (int slot = 0; slot < min(a_.stages, tile.end_step - tile.first_step); ++slot) {
        CopyWeight(tile, tile.first_step + slot, slot, warp_ - 1, kWarps - 1);
      }
    }
    if (warp_ == 0 || !boxes) WaitForPredecessor();
    if (!boxes) FindRows(tile);
#pragma unroll 1
    for (int step = tile.first_step; step < tile.end_step; ++step) {
      const int slot = turn_.slot;
      if (turn_.round > 0) {
        Await(&barriers_->empty[slot], turn_.round - 1);
        if (warp_ > 0) CopyWeight(tile, step, slot, warp_ - 1, kWarps - 1);
      }
      if (boxes) {
        if (warp_ == 0 && ElectLane()) {
          ArriveExpecting(Full(slot), a_.tile_panels * kPanelBytes + kBlocks * kXBlockBytes);
          for (int b = 0; b < kBlocks; ++b) {
            CopyBox(Slot(slot) + b * kXBlockBytes, x, step * kStageK + b * kBlockK, tile.first_row, Full(slot));
          }
        }
      } else {
        CopyOddRows(step, shared_ + slot * a_.stage_bytes);
        asm volatile("fence.proxy.async.shared::cta;\nbar.sync 1, %0;" ::"n"(kFeedThreads) : "memory");
        if (thread_ == 0) ArriveExpecting(Full(slot), a_.tile_panels * kPanelBytes);
      }
      turn_.Advance(a_.stages);
    }
  }

  /// A tile of a grouped kernel, one of many.
  __device__ void Run(const Tile& tile) {
    FindRows(tile);
#pragma unroll 1
    for (int step = tile.first_step; step < tile.end_step; ++step) {
      if (turn_.round > 0) Await(&barriers_->empty[turn_.slot], turn_.round - 1);
      const uint32_t to = Slot(turn_.slot), full = Full(turn_.slot);
      if (thread_ == 0) ArriveExpecting(full, kTilePanels * kPanelBytes);
      CopyWeight(tile, step, turn_.slot, warp_, kWarps);
      if (a_.x_aligned && (step + 1) * kStageK <= a_.K) {
        CopyRows(tile, step, to);
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(full) : "memory");
      } else {
        CopyOddRows(step, shared_ + turn_.slot * a_.stage_bytes);
        CommitCopies();
        WaitCopies<0>();
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        Arrive(full);
      }
      turn_.Advance(a_.stages);
    }
  }

 private:
  __device__ __forceinline__ int TokenOf(int i) const { return thread_ / 8 + i * kRowsAtOnce; }

  /// The row of x behind each token of the tile; tokens beyond the last row repeat it: their sums are not stored. The eight threads of a
  /// token are one warp's.
  __device__ __forceinline__ void FindRows(const Tile& tile) {
    __syncwarp();
    if (thread_ % 8 == 0) {
#pragma unroll 1
      for (int i = 0; i < kRowParts; ++i) {
        const int r = tile.first_row + min(TokenOf(i), tile.rows - 1);
        row_of_[TokenOf(i)] = a_.source != nullptr ? a_.source[r] : r;
      }
    }
    __syncwarp();
  }

  __device__ __forceinline__ uint32_t Slot(int slot) const { return SharedAddress(shared_) + slot * a_.stage_bytes; }
  __device__ __forceinline__ uint32_t Full(int slot) const { return SharedAddress(&barriers_->full[slot]); }

  /// A whole warp: panels first, first + stride, ... of a stage. Panels beyond the last one repeat it: their sums are not stored. Units
  /// beyond the last one repeat it: their columns of x are zeros.
  __device__ __forceinline__ void CopyWeight(const Tile& tile, int step, int slot, int first, int stride) const {
    if (!ElectLane()) return;
    const int unit = step * kStageUnits;
    uint32_t to = Slot(slot) + kBlocks * kXBlockBytes + first * kPanelBytes;
    for (int p = first; p < a_.tile_panels; p += stride, to += stride * kPanelBytes) {
      const int panel = min(tile.out / kPanelRows + p, a_.panels - 1);
      const uint8_t* from = a_.weight + tile.expert * a_.expert_bytes + (static_cast<int64_t>(panel) * a_.units + unit) * kUnitBytes;
      if (unit + kStageUnits <= a_.units) {
        CopyBulk(to, from, kPanelBytes, Full(slot));
      } else {
        for (int u = 0; u < kStageUnits; ++u) {
          CopyBulk(to + u * kUnitBytes, from + min(u, a_.units - 1 - unit) * kUnitBytes, kUnitBytes, Full(slot));
        }
      }
    }
  }

  __device__ __forceinline__ void CopyRows(const Tile& tile, int step, uint32_t to) const {
    const int64_t stride = a_.x_stride * 2;
    const char* x = static_cast<const char*>(a_.x) + int64_t{2} * (step * kStageK + thread_ % 8 * 8);
#pragma unroll
    for (int i = 0; i < kRowParts; ++i) {
      if (i * kRowsAtOnce >= tile.rows) break;
      const char* from = x + row_of_[TokenOf(i)] * stride;
      const uint32_t at = to + TokenOf(i) * 128 + (thread_ % 8 ^ TokenOf(i) % 8) * 16;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) CopyAsync16(at + b * kXBlockBytes, from + b * kBlockK * 2);
    }
  }

  /// Columns beyond K are zeros: their codes are zeros, but what lies in memory there may be no number.
  __device__ void CopyOddRows(int step, uint8_t* to) const {
#pragma unroll 1
    for (int p = 0; p < kRowParts * kBlocks; ++p) {
      const int i = p / kBlocks, b = p % kBlocks, token = TokenOf(i);
      const int column = step * kStageK + b * kBlockK + thread_ % 8 * 8, valid = min(max(a_.K - column, 0), 8);
      const uint16_t* from = static_cast<const uint16_t*>(a_.x) + row_of_[token] * a_.x_stride + (valid > 0 ? column : 0);
      uint8_t* at = to + b * kXBlockBytes + token * 128 + (thread_ % 8 ^ token % 8) * 16;
      if (a_.x_aligned) {
        CopyAsync16Zeroed(SharedAddress(at), from, valid * 2);
      } else {
#pragma unroll 1
        for (int c = 0; c < 8; ++c) reinterpret_cast<uint16_t*>(at)[c] = c < valid ? from[c] : uint16_t{0};
      }
    }
  }

  const LinearTileArgs& a_;
  uint8_t* shared_;
  int32_t* row_of_;
  StageBarriers* barriers_;
  int thread_, warp_;
  StageTurn turn_;
};

}  // namespace billfish::cuda
