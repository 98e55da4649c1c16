#include "backend/cuda_linear.h"

#include <optional>
#include <utility>

#include "core/status_macros.h"
#include "cuda/device.h"
#include "cuda/gather_columns.h"
#include "cuda/linear_decode.h"
#include "cuda/linear_tile.h"

namespace billfish::backend {
namespace {

class CudaLinear final : public Kernel {
 public:
  static Result<std::unique_ptr<Kernel>> Make(const Problem& problem, const std::vector<CudaRow>& rows, const PackedWeight& weight,
                                              const std::vector<float>& bias) {
    auto linear = std::make_unique<CudaLinear>();
    BILLFISH_ASSIGN_OR_RETURN(linear->gpu_, cuda::GpuDevice::Get(problem.device.index));
    BILLFISH_ASSIGN_OR_RETURN(linear->weight_, cuda::TileWeight::Upload(weight, *linear->gpu_, cuda::RowOrder::kPlain));
    const cuda::TileForm& form = linear->weight_.form();
    BILLFISH_ASSIGN_OR_RETURN(linear->bias_, UploadBias(bias, form, problem.device));
    const cuda::TileView view{form, linear->weight_.tiles(), linear->weight_.row_scale(),
                              reinterpret_cast<const float*>(linear->bias_.data())};
    for (const CudaRow& row : rows) {
      if (!row.verdict.supported) continue;
      if (linear->name_.empty()) linear->name_ = row.verdict.kernel;
      if (row.family == CudaFamily::kLinearDecode) {
        BILLFISH_ASSIGN_OR_RETURN(linear->decode_, cuda::LinearDecode::Create(*linear->gpu_, view, problem.activation));
      } else {
        BILLFISH_ASSIGN_OR_RETURN(linear->tile_, cuda::LinearTile::Create(*linear->gpu_, view, problem.activation));
      }
    }
    if (linear->weight_.perm() != nullptr) {
      BILLFISH_ASSIGN_OR_RETURN(linear->gather_, cuda::GatherColumns::Create(*linear->gpu_));
    }
    return std::unique_ptr<Kernel>(std::move(linear));
  }

  std::string_view name() const override { return name_; }
  size_t bytes() const override { return weight_.bytes() + bias_.bytes(); }

  size_t WorkspaceBytes(int64_t rows, int) const override { return GatheredBytes(rows); }

  Status Run(const Call& call) const override {
    BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
    auto stream = static_cast<cuda::CUstream>(call.stream);
    const void* x = call.x.data();
    int64_t x_stride = call.x.stride(0);
    if (gather_) {
      const int64_t K = weight_.form().K;
      BILLFISH_RETURN_IF_ERROR(gather_->Run(x, x_stride, weight_.perm(), call.workspace.data(), call.rows, K, stream));
      x = call.workspace.data();
      x_stride = K;
    }
    const cuda::TileOutput y{call.y.mutable_data(), call.y.stride(0), call.y.dtype()};
    if (Decodes(call.rows) || !tile_) return decode_->Run(x, x_stride, call.rows, y, stream);
    return tile_->Run(x, x_stride, call.rows, y, stream);
  }

 private:
  bool Decodes(int64_t rows) const { return decode_ && rows <= kDecodeRows; }
  // The rows of x with their columns in the order of the weight.
  size_t GatheredBytes(int64_t rows) const {
    return weight_.perm() == nullptr ? 0 : (static_cast<size_t>(rows * weight_.form().K) * 2 + 255) / 256 * 256;
  }

  const cuda::GpuDevice* gpu_ = nullptr;
  std::string_view name_;
  cuda::TileWeight weight_;
  DeviceBuffer bias_;
  std::optional<cuda::LinearDecode> decode_;
  std::optional<cuda::LinearTile> tile_;
  std::optional<cuda::GatherColumns> gather_;
};

}  // namespace

Result<std::unique_ptr<Kernel>> MakeCudaLinear(const Problem& problem, const std::vector<CudaRow>& rows, const PackedWeight& weight,
                                               const std::vector<float>& bias) {
  return CudaLinear::Make(problem, rows, weight, bias);
}

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

}  // namespace billfish::backend
