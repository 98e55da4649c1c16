#include "backend/cuda_moe.h"

#include <utility>
#include <vector>

#include "backend/bias.h"
#include "backend/cuda_table.h"
#include "core/status_macros.h"

namespace billfish::backend {

Result<CudaMoe::Matrix> CudaMoe::Upload(const PackedWeight& weight, ConstTensorView bias, cuda::RowOrder order, const MoeOptions& options) {
  Problem problem;
  problem.op = Op::kGroupedLinear;
  problem.scheme = weight.scheme();
  problem.activation = options.activation_dtype;
  problem.mode = options.mode;
  problem.device = options.device;
  problem.E = weight.E(), problem.N = weight.N(), problem.K = weight.K();
  problem.act_order = !weight.parts().perm.empty();
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<CudaRow> rows, CudaRowsFor(problem, options.kernel));
  Matrix matrix;
  for (const CudaRow& row : rows) {
    if (row.verdict.supported && matrix.info.kernel.empty()) matrix.info.kernel = row.verdict.kernel;
  }
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<float> values, ReadBias(bias, problem));
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuDevice::Get(options.device.index));
  BILLFISH_ASSIGN_OR_RETURN(matrix.tiles, BiasedTiles::Upload(weight, values, order, *gpu, options.device));
  matrix.info.scheme = weight.scheme();
  matrix.info.E = weight.E(), matrix.info.N = weight.N(), matrix.info.K = weight.K();
  matrix.info.bytes = matrix.tiles.bytes();
  matrix.info.weight_bytes = weight.bytes();
  return matrix;
}

Result<std::unique_ptr<CudaMoe>> CudaMoe::Create(const PackedWeight& gate_up, const PackedWeight& down, const MoeOptions& options) {
  auto moe = std::make_unique<CudaMoe>();
  BILLFISH_ASSIGN_OR_RETURN(moe->gpu_, cuda::GpuDevice::Get(options.device.index));
  const cuda::RowOrder order = !options.activation.gated()                   ? cuda::RowOrder::kPlain
                               : options.order == GateUpOrder::kConcatenated ? cuda::RowOrder::kGateUpConcatenated
                                                                             : cuda::RowOrder::kGateUpInterleaved;
  auto first = Upload(gate_up, options.gate_up_bias, order, options);
  if (!first) return first.error().WithContext("MoeLayer gate_up");
  auto second = Upload(down, options.down_bias, cuda::RowOrder::kPlain, options);
  if (!second) return second.error().WithContext("MoeLayer down");
  moe->gate_up_ = std::move(*first);
  moe->down_ = std::move(*second);
  BILLFISH_ASSIGN_OR_RETURN(moe->pipeline_,
                            cuda::MoePipeline::Create(*moe->gpu_, moe->gate_up_.tiles.View(), moe->down_.tiles.View(),
                                                      {.activation = options.activation, .activation_dtype = options.activation_dtype}));
  return moe;
}

Status CudaMoe::Run(const cuda::MoeCall& call, std::span<std::byte> workspace, CudaStream stream) const {
  BILLFISH_RETURN_IF_ERROR(gpu_->MakeCurrent());
  return pipeline_->Run(call, workspace, static_cast<cuda::CUstream>(stream));
}

Status CudaMoe::Run(const cuda::HeldNormedCall& call, std::span<std::byte> workspace, CudaStream stream) const {
  return pipeline_->Run(call, workspace, static_cast<cuda::CUstream>(stream));
}

}  // namespace billfish::backend
