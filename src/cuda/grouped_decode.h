// GroupedDecode: out[r] = act(W[e] x[source[r]] + b[e]) for few rows an expert, by src/cuda/kernels/w4a16_grouped_stream_sm80.cu or, for
// the slots of one token or two, w4a16_grouped_decode_sm80.cu.
//
// Create compiles or loads every variant; Run picks one by the tile rows of the call and launches it: no allocation, no compilation, no
// synchronisation. Results depend on the routing alone. Objects may be used by several threads and streams at once.
#pragma once

#include <cstdint>
#include <vector>

#include "billfish/moe.h"
#include "billfish/status.h"
#include "cuda/device.h"
#include "cuda/jit.h"
#include "cuda/linear_tile.h"
#include "cuda/moe_args.h"

namespace billfish::cuda {

/// Of w4a16_grouped_stream_sm80.cu.
struct StreamVariant {
  int rows;        ///< of a tile, at most: 8 or 16
  int row_blocks;  ///< 16-row blocks of an item
  int warps;       ///< of a CTA
  int stages;      ///< steps in a warp's ring
};

/// Of w4a16_grouped_decode_sm80.cu.
struct DecodeVariant {
  int rows;    ///< of a tile, at most
  int panels;  ///< that a block works on at a time
  int warps;   ///< of a block, which split the units of an item
  int stages;  ///< units in a warp's ring
  int blocks;  ///< an SM
};

/// Rows behind a call: tiles that moe_sort listed, or ids of few slots that the kernel sorts itself.
struct DecodeWork {
  int64_t slots = 0;
  int tile_rows = 8;  ///< GroupedDecode::TileRows; no TileWork has more rows
  const TileWork* work = nullptr;
  const int32_t* work_count = nullptr;
  const int32_t* source = nullptr;  ///< row of x of a sorted row; null: the sorted row itself
  const int32_t* ids = nullptr;     ///< not null: sort here
  int64_t top_k = 1, first_expert = 0;
  int32_t* position = nullptr;  ///< [slots] with ids, of Run: where it writes the sorted row of each slot, or -1; or null
  bool gather = false;          ///< with ids: x has one row a token
  bool x_padded = false;        ///< x has zeros from K up to the next multiple of 8
  bool overlapped = false;      ///< a dependent launch whose predecessor did not write the work: weights are read ahead of its end
};

/// With ids: the down kernel adds the slots of a token up by itself, whichever warp finishes 16 columns last. Without: see MoePipeline.
struct DecodeCombine {
  int32_t* arrivals = nullptr;  ///< [4 * panels of the down matrix] on the device, cleared by the gate|up call, counted up by the down call
  const float* weights = nullptr;  ///< [T][top_k]
  const void* addend = nullptr;    ///< like y, or null
  void* y = nullptr;               ///< [T][y_stride]
  int64_t y_stride = 0;
  OutType y_type = OutType::kF32;
};

class GroupedDecode {
 public:
  /// x_dtype: kBF16 or kF16. activation: null (f32 out) or the one to fuse (out in x_dtype). Errors: CheckActivation, kInvalidArgument (the
  /// row order does not fit the activation), those of LoadKernel.
  static Result<GroupedDecode> Create(const GpuDevice& device, const TileView& weight, DType x_dtype, const Activation* activation);

  /// Most rows of a tile for `rows` sorted rows over all experts.
  int TileRows(int64_t rows) const;

  /// Whether Run sorts so many slots by itself.
  bool Sorts(int64_t slots) const;

  /// out: [sorted rows][out_stride]. With an activation, columns from its last up to the next multiple of 8 become zero if the stride has
  /// room: such rows may be read 8 elements at a time.
  Status Run(const DecodeWork& work, const void* x, int64_t x_stride, void* out, int64_t out_stride, CUstream stream) const;
  /// The same for ids of at most kDirectSlots slots, of one token or two: gate|up clears `arrivals` counters, down combines.
  Status RunGateUp(const DecodeWork& work, const void* x, int64_t x_stride, void* h, int64_t h_stride, int32_t* arrivals, int64_t count,
                   CUstream stream) const;
  Status RunDown(const DecodeWork& work, const void* h, int64_t h_stride, void* out, int64_t out_stride, const DecodeCombine& combine,
                 CUstream stream) const;

 private:
  struct Loaded {
    DecodeVariant variant;
    LoadedKernel kernel;
  };
  struct LoadedStream {
    StreamVariant variant;
    LoadedKernel kernel;
    int most_rows;  ///< of x that fit in shared memory
  };
  GroupedDecodeArgs Arguments(const DecodeWork& work, const void* x, int64_t x_stride, void* out, int64_t out_stride) const;
  const Loaded& ChooseFew(const DecodeWork& work) const;
  const LoadedStream* Choose(const DecodeWork& work) const;
  Status LaunchFew(GroupedDecodeArgs args, const DecodeWork& work, CUstream stream) const;
  Status LaunchStream(GroupedDecodeArgs args, const DecodeWork& work, CUstream stream) const;

  const GpuDevice* device_ = nullptr;
  TileView weight_;
  ActivationParameters parameters_;
  bool gated_ = false, activated_ = false;
  std::vector<LoadedStream> variants_;  ///< by rising rows
  std::vector<Loaded> few_;             ///< by rising warps
};

std::vector<StreamVariant> StreamVariants(const TileLayout& layout, Arch arch);
KernelSpec StreamSpec(const TileLayout& layout, Arch arch, const StreamVariant& variant, bool half, ActivationKind activation);
std::vector<DecodeVariant> DecodeVariants(const TileLayout& layout, Arch arch);
KernelSpec DecodeSpec(const TileLayout& layout, const DecodeVariant& variant, bool half, ActivationKind activation);

/// What `billfish kernels` lists.
void AppendGroupedDecodeSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
