#include "backend/biased_tiles.h"

#include "core/status_macros.h"

namespace billfish::backend {
namespace {

Result<DeviceBuffer> UploadBias(const std::vector<float>& bias, const cuda::TileForm& form, Device device) {
  if (bias.empty()) return DeviceBuffer();
  std::vector<float> packed(static_cast<size_t>(form.E * form.packed_rows()), 0.0F);
  for (int64_t e = 0; e < form.E; ++e) {
    for (int64_t row = 0; row < form.packed_rows(); ++row) {
      const int64_t source = cuda::SourceRow(form, row);
      if (source >= 0) packed[static_cast<size_t>(e * form.packed_rows() + row)] = bias[static_cast<size_t>(e * form.N + source)];
    }
  }
  BILLFISH_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(device, packed.size() * sizeof(float)));
  const auto count = static_cast<int64_t>(packed.size());
  BILLFISH_RETURN_IF_ERROR(
      CopyTensor(TensorView(buffer.data(), DType::kF32, {count}, device), ConstTensorView(packed.data(), DType::kF32, {count})));
  return buffer;
}

}  // namespace

Result<BiasedTiles> BiasedTiles::Upload(const PackedWeight& weight, const std::vector<float>& bias, cuda::RowOrder order,
                                        const cuda::GpuDevice& gpu, Device device) {
  BiasedTiles tiles;
  BILLFISH_ASSIGN_OR_RETURN(tiles.weight, cuda::TileWeight::Upload(weight, gpu, order));
  BILLFISH_ASSIGN_OR_RETURN(tiles.bias, UploadBias(bias, tiles.weight.form(), device));
  return tiles;
}

cuda::TileView BiasedTiles::View() const {
  return {weight.form(), weight.tiles(), weight.row_scale(), reinterpret_cast<const float*>(bias.data())};
}

}  // namespace billfish::backend
