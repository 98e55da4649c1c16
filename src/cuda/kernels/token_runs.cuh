// What a CTA of the kernel w4a16_token_moe has of its work, and in which order. w4a16_token_moe_sm80.cu has the overview.
//
// A run is a stretch of steps, units along K, of one panel of one slot's expert. Of gate|up, whole panels go round the CTAs, those of the
// first slot first, so that rows of h are complete one after the other. The panels of down with the steps of all slots behind each other
// are one line, and a CTA takes such a stretch of it that all CTAs have the same number of steps in all. It begins with the last panel of
// the stretch and ends with the first one, of which it has the last slots: their rows of h come last.
#pragma once

#include "cuda/kernels/grouped_step.cuh"
#include "cuda/token_moe_args.h"

namespace billfish::cuda {

struct TokenRun {
  int down;         ///< 0 for gate|up
  int row, panel;   ///< of h; of the matrix
  int step, steps;  ///< along K
  int panel_steps;  ///< that the CTA has of the panel
  int ends;         ///< with the last of them
};

/// The steps of down before those of a share.
class DownCut {
 public:
  /// Of `rows` slots, at least one.
  __device__ __forceinline__ DownCut(const TokenMoeArgs& args, int rows) {
    const uint32_t cells = rows * args.gate_up.panels;
    each_ = cells / gridDim.x;
    more_ = cells - each_ * gridDim.x;
    cell_ = args.gate_up.units;
    steps_ = rows * args.down.panels * args.down.units;
    all_ = cells * cell_ + steps_;
  }
  __device__ __forceinline__ int Before(uint32_t share) const {
    // Where one more panel of gate|up is more than an even share, the CTAs that have it have nothing else.
    const uint32_t shares = gridDim.x, even = (each_ + (more_ > 0 ? 1 : 0)) * cell_ * shares;
    if (even <= all_) return static_cast<int>(all_ * share / shares - (each_ * share + min(share, more_)) * cell_);
    return share <= more_ ? 0 : static_cast<int>(steps_ * (share - more_) / (shares - more_));
  }

 private:
  uint32_t each_, more_, cell_, steps_, all_;
};

/// The runs of a share, one after the other.
class TokenRuns {
 public:
  __device__ __forceinline__ TokenRuns(const TokenMoeArgs& args, int rows, uint32_t share)
      : rows_(rows), panels_(args.gate_up.panels), units_(args.gate_up.units), down_units_(args.down.units) {
    row_ = static_cast<int>(share / static_cast<uint32_t>(panels_)), panel_ = static_cast<int>(share) - row_ * panels_;
    row_stride_ = static_cast<int>(gridDim.x / static_cast<uint32_t>(panels_));
    panel_stride_ = static_cast<int>(gridDim.x) - row_stride_ * panels_;
    const DownCut cut(args, rows);
    begin_ = cut.Before(share), end_ = cut.Before(share + 1);
  }

  __device__ __forceinline__ bool Next(TokenRun& run) {
    if (row_ < rows_) {
      run = {0, row_, panel_, 0, units_, units_, 1};
      row_ += row_stride_, panel_ += panel_stride_;
      if (panel_ >= panels_) panel_ -= panels_, ++row_;
      return true;
    }
    if (left_ == 0) {
      if (begin_ == end_) return false;
      const int panel_steps = rows_ * down_units_;
      down_panel_ = static_cast<int>(static_cast<uint32_t>(end_ - 1) / static_cast<uint32_t>(panel_steps));
      const int first = max(begin_, down_panel_ * panel_steps), in_panel = first - down_panel_ * panel_steps;
      left_ = share_steps_ = end_ - first;
      end_ = first;
      down_row_ = static_cast<int>(static_cast<uint32_t>(in_panel) / static_cast<uint32_t>(down_units_));
      down_step_ = in_panel - down_row_ * down_units_;
    }
    const int steps = min(down_units_ - down_step_, left_);
    left_ -= steps;
    run = {1, down_row_, down_panel_, down_step_, steps, share_steps_, left_ == 0 ? 1 : 0};
    ++down_row_;
    down_step_ = 0;
    return true;
  }

 private:
  int rows_, panels_, units_, down_units_;
  int row_, panel_, row_stride_, panel_stride_;
  int begin_, end_;  ///< of what is left of the share of down, without the panel that was begun
  int left_ = 0, share_steps_ = 0, down_panel_ = 0, down_row_ = 0, down_step_ = 0;  ///< of that panel
};

/// Every kWarps-th step of a CTA is a warp's.
template <int kWarps>
class WarpSteps {
 public:
  __device__ __forceinline__ explicit WarpSteps(int warp) : next_(warp) {}
  /// Of the next run: the warp's first step and how many.
  __device__ __forceinline__ int Take(int steps, int& first) {
    first = next_;
    const int count = static_cast<int>(static_cast<uint32_t>(max(steps - next_ + kWarps - 1, 0)) / kWarps);
    next_ += count * kWarps - steps;
    return count;
  }

 private:
  int next_;  ///< from the beginning of the next run
};

}  // namespace billfish::cuda
