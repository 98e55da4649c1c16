// y = x . W^T by the tile kernels (src/cuda/kernels/w4a16_linear_tile_sm80.cu, _sm90a.cu, w4a16_grouped_tile_sm90a.cu): LinearTile for one
// matrix and any number of rows, GroupedTile for rows that are sorted by expert, with an optional activation.
//
// Create compiles or loads every variant; Run picks one from the shapes alone and launches it on the stream: no allocation, no
// compilation, no synchronisation, no workspace, so that it may be captured. Results are the same every time: each sum has one order, which
// depends on the shapes and the device only. Objects may be used by several threads and streams at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "billfish/moe.h"
#include "billfish/status.h"
#include "billfish/tensor.h"
#include "cuda/device.h"
#include "cuda/jit.h"
#include "cuda/linear_tile_args.h"
#include "cuda/tile_form.h"

namespace billfish::cuda {

/// A packed weight on the device, borrowed: the memory (of a TileWeight, say) must outlive what is created from the view.
struct TileView {
  TileForm form;
  const std::byte* units = nullptr;  ///< 16-byte aligned
  const float* row_scale = nullptr;  ///< [E][packed_rows] where the form has it, else null
  const float* bias = nullptr;       ///< [E][packed_rows] in packed order, or null
};

/// Which tensor-core instructions: kBest is wgmma on sm_90a and mma.sync elsewhere; kMmaSync runs everywhere.
enum class TileCores : uint8_t { kBest, kMmaSync };

/// The shape of a CTA's tile and of its warps'.
struct TileVariant {
  int m16, n8;  ///< blocks of 16 packed rows and of 8 tokens of a warp
  int warps_m, warps_n;
  int stages;          ///< steps of K in shared memory; with wgmma the most of them
  int ctas_per_sm;     ///< that the registers and shared memory must allow
  bool wgmma = false;  ///< the kernels for sm_90a, where one more warpgroup copies; else w4a16_linear_tile_sm80.cu
  int units = 1;       ///< of K in a stage

  /// Most packed rows of a tile, and panels. Dense tiles of sm_90a may have fewer.
  constexpr int out() const { return 16 * m16 * warps_m; }
  constexpr int panels() const { return out() / kPanelRows; }
  constexpr int tokens() const { return 8 * n8 * warps_n; }
  /// Those that multiply.
  constexpr int threads() const { return 32 * warps_m * warps_n; }
  constexpr int block_threads() const { return threads() + (wgmma ? 128 : 0); }
};

/// Rows of x or y on the device: [rows][stride], 16-bit x of the type given to Create; y F32, BF16 or F16.
struct TileOutput {
  void* data = nullptr;
  int64_t stride = 0;  ///< elements
  DType dtype = DType::kBF16;
};

/// The type of y as kernels are told it. kUnsupported names `kernel` ("a tile kernel") for any other type.
Result<OutType> OutTypeOf(DType dtype, const char* kernel);

class LinearTile {
 public:
  /// activation: kBF16 or kF16. Errors: kUnsupported (CheckActivation), kInvalidArgument (a form with E > 1 or another row order than
  /// kPlain), those of LoadKernel.
  static Result<LinearTile> Create(const GpuDevice& device, const TileView& weight, DType activation, TileCores cores = TileCores::kBest);

  /// y[M,N] = row_scale * (x[M,K] . W^T) + bias. x: M rows, x_stride elements apart; any alignment of 2 bytes, 16 are faster.
  Status Run(const void* x, int64_t x_stride, int64_t M, const TileOutput& y, CUstream stream) const;

 private:
  const GpuDevice* device_ = nullptr;
  TileView weight_;
  std::vector<TileVariant> variants_;
  std::vector<LoadedKernel> kernels_;  ///< one a variant
};

struct GroupedTileCall {
  const void* x = nullptr;
  int64_t x_stride = 0;
  TileOutput y;                         ///< [sorted rows][N, or the number of features after a gated activation]
  int tile_rows = 0;                    ///< GroupedTile::TileRows of this call: no TileWork has more rows
  const TileWork* work = nullptr;       ///< on the device
  const int32_t* work_count = nullptr;  ///< on the device
  const int32_t* source = nullptr;      ///< on the device: the row of x behind a sorted row; null = the sorted row itself
};

class GroupedTile {
 public:
  /// activation: null or one whose gated() says whether the form's row order pairs gate and up (kInvalidArgument otherwise).
  static Result<GroupedTile> Create(const GpuDevice& device, const TileView& weight, DType x_dtype, const Activation* activation,
                                    TileCores cores = TileCores::kBest);

  /// Most rows of a TileWork for `rows` sorted rows: a variant's token tile, near the mean of an expert's rows.
  int TileRows(int64_t rows) const;
  /// So many rows more make such a tile cost more; 0: all cost the same.
  int CostRows(int tile_rows) const;

  /// y[r] = act(row_scale * (x[source[r]] . W[expert]^T) + bias[expert]) for the rows of every TileWork.
  Status Run(const GroupedTileCall& call, CUstream stream) const;

 private:
  const GpuDevice* device_ = nullptr;
  TileView weight_;
  ActivationParameters parameters_;
  bool gated_ = false;
  std::vector<TileVariant> variants_;
  std::vector<LoadedKernel> kernels_;  ///< one a variant
};

/// What a layout's kernels look like on a device of this architecture, by rising token tile: the same token tiles for every layout.
std::vector<TileVariant> TileVariants(const TileLayout& layout, Arch arch, bool grouped, TileCores cores);
KernelSpec TileSpec(const TileLayout& layout, const TileVariant& variant, bool half, bool grouped, ActivationKind activation, Arch arch);

/// What `billfish kernels` lists: a cross-section of layouts, types and activations; the others are compiled when they are asked for.
void AppendLinearTileSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
