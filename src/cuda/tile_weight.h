// TileWeight: a weight on a GPU in packed form, ready for kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "billfish/cuda.h"
#include "billfish/status.h"
#include "billfish/weight.h"
#include "cuda/device.h"
#include "cuda/jit.h"
#include "cuda/tile_form.h"

namespace billfish::cuda {

/// Owns one block of device memory; moves, does not copy. Reading it is safe on any stream once Upload has returned.
class TileWeight {
 public:
  TileWeight() = default;

  /// Sends the plain rows, a slice of panels at a time, and packs them on the device (src/cuda/kernels/pack_tiles.cu). Beside the weight
  /// itself host and device hold two slices: 16 MB, or 1/16 of the packed weight if that is less, or two panels if that is more.
  /// threads = 0 uses DefaultThreads(). Returns when all is done. Errors: FormOf's, LoadKernel's, kOutOfMemory, kDevice.
  static Result<TileWeight> Upload(const PackedWeight& weight, const GpuDevice& device, RowOrder order, int threads = 0);

  const TileForm& form() const { return form_; }
  /// [E][panels][units] units of form().layout.
  const std::byte* tiles() const { return memory_.data(); }
  /// [E][panels * 64] fp32, or null.
  const float* row_scale() const { return reinterpret_cast<const float*>(At(row_scale_offset_)); }
  /// [E][K]: expert e multiplies x'[j] = x[perm[e, j]]; null without act-order.
  const int32_t* perm() const { return reinterpret_cast<const int32_t*>(At(perm_offset_)); }
  /// Device memory that the weight takes.
  size_t bytes() const { return memory_.bytes(); }

 private:
  const std::byte* At(size_t offset) const { return offset == 0 ? nullptr : memory_.data() + offset; }

  TileForm form_;
  DeviceBuffer memory_;
  size_t row_scale_offset_ = 0, perm_offset_ = 0;  ///< 0 = absent: the tiles come first
};

/// What `billfish kernels` lists.
void AppendPackSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
