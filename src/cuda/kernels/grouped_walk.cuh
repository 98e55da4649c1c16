// What a CTA and a warp of the kernel w4a16_grouped_stream have of its line of work. w4a16_grouped_stream_sm80.cu has the overview.
#pragma once

#include "cuda/kernels/grouped_step.cuh"

namespace billfish::cuda {

/// The CTA's part of the line of items. Items are numbered from the first one of the tile in which the part begins.
struct StreamLine {
  uint32_t tile_items = 1;           ///< of each tile
  int first_item = 0, end_item = 0;  ///< of this CTA
  int first_tile = 0, tile_count = 0;
  const TileWork* tiles = nullptr;   ///< from first_tile on
  const int32_t* source = nullptr;   ///< row of x of a sorted row; null: the sorted row itself, but for `tokens`
  const uint16_t* tokens = nullptr;  ///< the same from the first row of the first tile on, or null

  StreamLine() = default;
  __device__ __forceinline__ StreamLine(int all_tiles, uint32_t tile_items_) : tile_items(tile_items_) {
    // One division each: divisions are slow, and nothing can begin before.
    const uint32_t items = static_cast<uint32_t>(all_tiles) * tile_items, each = items / gridDim.x, more = items - each * gridDim.x;
    const uint32_t first = each * blockIdx.x + min(blockIdx.x, more), end = first + each + (blockIdx.x < more ? 1 : 0);
    first_tile = static_cast<int>(first / tile_items);
    const uint32_t before = static_cast<uint32_t>(first_tile) * tile_items;
    first_item = static_cast<int>(first - before), end_item = static_cast<int>(end - before);
    tile_count = first == end ? 0 : static_cast<int>(static_cast<uint32_t>(end_item + tile_items - 1) / tile_items);
  }
};

/// An item and the tile that it belongs to.
struct ItemAt {
  int tile = 0, item = 0;  ///< the tile, counted like StreamLine::tiles, and the item of it
  ItemAt() = default;
  __device__ __forceinline__ ItemAt(const StreamLine& line, int at)
      : tile(static_cast<uint32_t>(at) < line.tile_items ? 0 : static_cast<uint32_t>(at) / line.tile_items),
        item(at - tile * line.tile_items) {}
  /// Goes to the next item; true if it is of another tile.
  __device__ __forceinline__ bool Next(const StreamLine& line) {
    if (static_cast<uint32_t>(++item) < line.tile_items) return false;
    item = 0, ++tile;
    return true;
  }
};

/// Items whose rows of x are in shared memory together, in columns of some steps of K: all of them, or a phase's.
struct Round {
  int first_item = 0, end_item = 0;
  int first_step = 0, steps = 0;

  /// The first phase of the round that begins with `first_item`.
  template <int kRowBlocks>
  static __device__ __forceinline__ Round At(const GroupedDecodeArgs& args, const StreamLine& line, int first_item) {
    int tile = ItemAt(line, first_item).tile, end = 0, rows = line.tiles[tile].rows;
    do {
      ++tile;
      end = tile * static_cast<int>(line.tile_items);
      if (end >= line.end_item) break;
      rows += line.tiles[tile].rows;
    } while (rows <= args.x_rows);
    return Round{first_item, min(min(end, line.end_item), first_item + args.round_items), 0,
                 min(args.phase_steps, StepsOfItem<kRowBlocks>(args))};
  }
  /// Goes to the next phase of the same items; false after the last one.
  __device__ __forceinline__ bool NextPhase(int all_steps) {
    first_step += steps;
    steps = min(steps, all_steps - first_step);
    return steps > 0;
  }
};

/// A warp's part of the steps of a round.
template <int kWarps>
struct Share {
  int first, count;  ///< steps from the first of the round on
  __device__ __forceinline__ Share(const Round& round, int warp) {
    const int all = (round.end_item - round.first_item) * round.steps;
    first = all * warp / kWarps;
    count = all * (warp + 1) / kWarps - first;
  }
};

/// The runs of one warp, in order over all rounds.
template <int kRowBlocks, int kWarps>
class RoundWalk {
 public:
  __device__ __forceinline__ RoundWalk(const GroupedDecodeArgs& args, const StreamLine& line, int warp)
      : args_(args), line_(line), warp_(warp), steps_(StepsOfItem<kRowBlocks>(args)) {
    round_.end_item = line.first_item;
  }

  /// False at the end.
  __device__ __forceinline__ bool Next(Run& run) {
    run.step = round_.first_step;
    if (left_ > 0) {
      at_.Next(line_);
    } else {
      // The next round in which this warp has steps.
      while (left_ == 0) {
        if (!round_.NextPhase(steps_)) {
          if (round_.end_item >= line_.end_item) return false;
          round_ = Round::At<kRowBlocks>(args_, line_, round_.end_item);
        }
        const Share<kWarps> share(round_, warp_);
        left_ = share.count;
        const int item = static_cast<uint32_t>(share.first) / static_cast<uint32_t>(round_.steps);
        at_ = ItemAt(line_, round_.first_item + item);
        run.step = round_.first_step + share.first - item * round_.steps;
      }
    }
    const int block = at_.item * kRowBlocks;
    run.unit = args_.weight + line_.tiles[at_.tile].expert * args_.expert_bytes +
               static_cast<int64_t>(block / 4 * args_.units) * kLayout.unit_bytes();
    run.block = block % 4;
    run.steps = min(left_, round_.first_step + round_.steps - run.step);
    left_ -= run.steps;
    return true;
  }

 private:
  const GroupedDecodeArgs& args_;
  const StreamLine& line_;
  int warp_, steps_, left_ = 0;
  Round round_;
  ItemAt at_;
};

}  // namespace billfish::cuda
