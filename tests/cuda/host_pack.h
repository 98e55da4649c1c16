// Packs on the CPU with the source of the GPU's kernel: it has no barrier and no shared memory, so that its threads can run in turn.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/plain_rows.h"

namespace billfish::cuda::host {
struct Index {
  unsigned x = 0, y = 0, z = 0;
};
inline Index threadIdx, blockIdx, gridDim;
}  // namespace billfish::cuda::host

#define threadIdx billfish::cuda::host::threadIdx
#define blockIdx billfish::cuda::host::blockIdx
#define gridDim billfish::cuda::host::gridDim
#define __device__
#define __global__ inline
#define __launch_bounds__(threads)
#include "cuda/kernels/pack_tiles.cu"
#undef __launch_bounds__
#undef __global__
#undef __device__
#undef gridDim
#undef blockIdx
#undef threadIdx

namespace billfish::cuda {

/// Panels [begin, end) of the stack of experts.
struct HostPacked {
  TileForm form;
  std::vector<std::byte> tiles;
  std::vector<float> row_scale;
};

inline HostPacked PackOnHost(const PackedWeight& weight, const TileForm& form, int64_t begin, int64_t end) {
  HostPacked out{form, std::vector<std::byte>(static_cast<size_t>(end - begin) * form.panel_bytes(), std::byte{0xa5}), {}};
  const int64_t rows = (end - begin) * kPanelRows;
  const PlainRows plain(weight, form, rows);
  std::vector<std::byte> buffer(plain.bytes(), std::byte{0x5a});
  for (int64_t i = 0; i < rows; ++i) out.row_scale.push_back(plain.Copy(begin * kPanelRows + i, i, buffer.data()));
  const PackArgs args = plain.ArgsFor(buffer.data(), out.tiles.data());
  host::gridDim = {static_cast<unsigned>(form.units), static_cast<unsigned>(end - begin), 1};
  for (host::blockIdx.y = 0; host::blockIdx.y < host::gridDim.y; ++host::blockIdx.y) {
    for (host::blockIdx.x = 0; host::blockIdx.x < host::gridDim.x; ++host::blockIdx.x) {
      for (host::threadIdx.x = 0; host::threadIdx.x < kTileThreads; ++host::threadIdx.x) pack_tiles(args);
    }
  }
  return out;
}

}  // namespace billfish::cuda
