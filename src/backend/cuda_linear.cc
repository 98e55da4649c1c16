#include "backend/cuda_linear.h"

#include <optional>
#include <utility>

#include "backend/biased_tiles.h"
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
    BILLFISH_ASSIGN_OR_RETURN(linear->tiles_, BiasedTiles::Upload(weight, bias, cuda::RowOrder::kPlain, *linear->gpu_, problem.device));
    const cuda::TileView view = linear->tiles_.View();
    for (const CudaRow& row : rows) {
      if (!row.verdict.supported) continue;
      if (linear->name_.empty()) linear->name_ = row.verdict.kernel;
      if (row.family == CudaFamily::kLinearDecode) {
        BILLFISH_ASSIGN_OR_RETURN(linear->decode_, cuda::LinearDecode::Create(*linear->gpu_, view, problem.activation));
      } else {
        BILLFISH_ASSIGN_OR_RETURN(linear->tile_, cuda::LinearTile::Create(*linear->gpu_, view, problem.activation));
      }
    }
    if (linear->tiles_.weight.perm() != nullptr) {
      BILLFISH_ASSIGN_OR_RETURN(linear->gather_, cuda::GatherColumns::Create(*linear->gpu_));
    }
    return std::unique_ptr<Kernel>(std::move(linear));
  }

  std::string_view name() const override { return name_; }
  size_t bytes() const override { return tiles_.bytes(); }

  size_t WorkspaceBytes(int64_t rows, int) const override { return GatheredBytes(rows); }

  Status Run(const Call& call) const override {
    BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
    auto stream = static_cast<cuda::CUstream>(call.stream);
    const void* x = call.x.data();
    int64_t x_stride = call.x.stride(0);
    if (gather_) {
      const int64_t K = tiles_.weight.form().K;
      BILLFISH_RETURN_IF_ERROR(gather_->Run(x, x_stride, tiles_.weight.perm(), call.workspace.data(), call.rows, K, stream));
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
    return tiles_.weight.perm() == nullptr ? 0 : (static_cast<size_t>(rows * tiles_.weight.form().K) * 2 + 255) / 256 * 256;
  }

  const cuda::GpuDevice* gpu_ = nullptr;
  std::string_view name_;
  BiasedTiles tiles_;
  std::optional<cuda::LinearDecode> decode_;
  std::optional<cuda::LinearTile> tile_;
  std::optional<cuda::GatherColumns> gather_;
};

}  // namespace

Result<std::unique_ptr<Kernel>> MakeCudaLinear(const Problem& problem, const std::vector<CudaRow>& rows, const PackedWeight& weight,
                                               const std::vector<float>& bias) {
  return CudaLinear::Make(problem, rows, weight, bias);
}

}  // namespace billfish::backend
