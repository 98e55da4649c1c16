#include "backend/cuda_grouped.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "backend/biased_tiles.h"
#include "core/rounding.h"
#include "core/status_macros.h"
#include "cuda/device.h"
#include "cuda/driver.h"
#include "cuda/driver_api.h"
#include "cuda/grouped_decode.h"
#include "cuda/linear_tile.h"

namespace billfish::backend {
namespace {

using cuda::TileWork;

constexpr size_t kAlign = 256;

class CudaGrouped final : public Kernel {
 public:
  static Result<std::unique_ptr<Kernel>> Make(const Problem& problem, const std::vector<CudaRow>& rows, const PackedWeight& weight,
                                              const std::vector<float>& bias) {
    auto grouped = std::make_unique<CudaGrouped>();
    BILLFISH_ASSIGN_OR_RETURN(grouped->gpu_, cuda::GpuDevice::Get(problem.device.index));
    BILLFISH_ASSIGN_OR_RETURN(grouped->tiles_, BiasedTiles::Upload(weight, bias, cuda::RowOrder::kPlain, *grouped->gpu_, problem.device));
    const cuda::TileView view = grouped->tiles_.View();
    for (const CudaRow& row : rows) {
      if (!row.verdict.supported) continue;
      if (grouped->name_.empty()) grouped->name_ = row.verdict.kernel;
      if (row.family == CudaFamily::kGroupedDecode) {
        BILLFISH_ASSIGN_OR_RETURN(grouped->decode_, cuda::GroupedDecode::Create(*grouped->gpu_, view, problem.activation, nullptr));
      } else {
        BILLFISH_ASSIGN_OR_RETURN(grouped->tile_, cuda::GroupedTile::Create(*grouped->gpu_, view, problem.activation, nullptr));
      }
    }
    return std::unique_ptr<Kernel>(std::move(grouped));
  }

  std::string_view name() const override { return name_; }
  size_t bytes() const override { return tiles_.bytes(); }

  /// The number of tiles, the tiles, the rows of x behind the sorted rows.
  size_t WorkspaceBytes(int64_t rows, int) const override {
    const int64_t tiles = std::min(rows, tiles_.weight.form().E) + rows / kLeastTile;
    return kAlign + RoundUp(static_cast<size_t>(tiles) * sizeof(TileWork), kAlign) +
           RoundUp(static_cast<size_t>(rows) * sizeof(int32_t), kAlign);
  }

  Status Run(const Call& call) const override {
    BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
    const bool decodes = decode_ && call.y.dtype() == DType::kF32 && (!tile_ || call.rows <= kDecodeMean * tiles_.weight.form().E);
    if (!decodes && !tile_) {
      return {ErrorCode::kInvalidArgument,
              fmt::format("{} alone was asked for and writes F32; y is {}: give F32 or leave the kernel open", name_, call.y.ToString())};
    }
    const int tile_rows = decodes ? decode_->TileRows(call.rows) : tile_->TileRows(call.rows);
    std::vector<TileWork> tiles;
    for (size_t e = 0; e + 1 < call.offsets.size(); ++e) {
      for (int32_t row = call.offsets[e]; row < call.offsets[e + 1]; row += tile_rows) {
        tiles.push_back({static_cast<int32_t>(e), row, std::min(tile_rows, call.offsets[e + 1] - row)});
      }
    }
    const auto count = static_cast<int32_t>(tiles.size());
    std::byte* at = call.workspace.data();
    auto* device_count = reinterpret_cast<int32_t*>(at);
    auto* work = reinterpret_cast<TileWork*>(at + kAlign);
    auto* source = reinterpret_cast<int32_t*>(at + kAlign + RoundUp(tiles.size() * sizeof(TileWork), kAlign));
    auto stream = static_cast<cuda::CUstream>(call.stream);
    BILLFISH_RETURN_IF_ERROR(Send(device_count, &count, sizeof(count), stream));
    BILLFISH_RETURN_IF_ERROR(Send(work, tiles.data(), tiles.size() * sizeof(TileWork), stream));
    if (call.source != nullptr) {
      BILLFISH_RETURN_IF_ERROR(Send(source, call.source, static_cast<size_t>(call.rows) * sizeof(int32_t), stream));
    }
    if (decodes) {
      cuda::DecodeWork decode;
      decode.slots = call.rows;
      decode.tile_rows = tile_rows;
      decode.work = work;
      decode.work_count = device_count;
      decode.source = call.source != nullptr ? source : nullptr;
      return decode_->Run(decode, call.x.data(), call.x.stride(0), call.y.mutable_data(), call.y.stride(0), stream);
    }
    cuda::GroupedTileCall tile;
    tile.x = call.x.data();
    tile.x_stride = call.x.stride(0);
    tile.y = {call.y.mutable_data(), call.y.stride(0), call.y.dtype()};
    tile.tile_rows = tile_rows;
    tile.work = work;
    tile.work_count = device_count;
    tile.source = call.source != nullptr ? source : nullptr;
    return tile_->Run(tile, stream);
  }

 private:
  static constexpr int64_t kDecodeMean = 8;  // rows an expert up to which weights are streamed
  static constexpr int64_t kLeastTile = 2;   // rows of the smallest tile

  // Host memory that the caller may reuse at once: the driver has read it when the call returns.
  static Status Send(void* to, const void* from, size_t bytes, cuda::CUstream stream) {
    BILLFISH_ASSIGN_OR_RETURN(const cuda::DriverApi* api, cuda::Driver());
    BILLFISH_RETURN_IF_ERROR(
        cuda::Check(api->MemcpyHtoDAsync(reinterpret_cast<cuda::CUdeviceptr>(to), from, bytes, stream), "sending the sorted rows"));
    return cuda::Check(api->StreamSynchronize(stream), "sending the sorted rows");
  }

  const cuda::GpuDevice* gpu_ = nullptr;
  std::string_view name_;
  BiasedTiles tiles_;
  std::optional<cuda::GroupedDecode> decode_;
  std::optional<cuda::GroupedTile> tile_;
};

}  // namespace

Result<std::unique_ptr<Kernel>> MakeCudaGrouped(const Problem& problem, const std::vector<CudaRow>& rows, const PackedWeight& weight,
                                                const std::vector<float>& bias) {
  return CudaGrouped::Make(problem, rows, weight, bias);
}

}  // namespace billfish::backend
