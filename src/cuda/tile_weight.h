// TileWeight: a weight on a GPU in packed form, ready for kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "billfish/cuda.h"
#include "billfish/status.h"
#include "billfish/weight.h"
#include "cuda/device.h"
#include "cuda/tile_form.h"

namespace billfish::cuda {

/// Owns one block of device memory; moves, does not copy. Reading it is safe on any stream once Upload has returned.
class TileWeight {
 public:
  TileWeight() = default;

  /// Packs the weight on the CPU, a slice of panels at a time, while the slice before is on its way to the device. Beside the weight itself
  /// the host holds 32 MB (two panels if they are larger) and the device nothing. threads = 0 uses DefaultThreads(). Returns when all is
  /// on the device. Errors: FormOf's, kOutOfMemory, kDevice.
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

}  // namespace billfish::cuda
