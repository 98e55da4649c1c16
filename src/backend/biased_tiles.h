// A packed weight on a GPU together with its bias, as kernels take them.
#pragma once

#include <vector>

#include "billfish/cuda.h"
#include "cuda/device.h"
#include "cuda/linear_tile.h"
#include "cuda/tile_weight.h"

namespace billfish::backend {

struct BiasedTiles {
  cuda::TileWeight weight;
  DeviceBuffer bias;  ///< fp32 [E][packed_rows] in packed order; empty without a bias

  /// bias: [E,N] or empty. Errors: those of TileWeight::Upload, kOutOfMemory, kDevice.
  static Result<BiasedTiles> Upload(const PackedWeight& weight, const std::vector<float>& bias, cuda::RowOrder order,
                                    const cuda::GpuDevice& gpu, Device device);

  /// Valid as long as this is.
  cuda::TileView View() const;
  size_t bytes() const { return weight.bytes() + bias.bytes(); }
};

}  // namespace billfish::backend
