// The expert block on a GPU: packed stacks with their biases and the pipeline over them.
#pragma once

#include <memory>
#include <optional>

#include "backend/biased_tiles.h"
#include "billfish/moe.h"
#include "cuda/moe_pipeline.h"

namespace billfish::backend {

class CudaMoe {
 public:
  /// gate_up [E,2I,H] in options.order ([E,I,H] for an activation without gate), down [E,H,I]; shapes are checked by the caller. Errors:
  /// those of the table (kUnsupported with every refusal), kOutOfMemory, kDevice, kCompile.
  static Result<std::unique_ptr<CudaMoe>> Create(const PackedWeight& gate_up, const PackedWeight& down, const MoeOptions& options);

  /// Operands lie on the device of the options and are checked by the caller.
  Status Run(const cuda::MoeCall& call, std::span<std::byte> workspace, CudaStream stream) const;
  /// See MoePipeline.
  bool Takes(const cuda::HeldNormedCall& call, std::span<std::byte> workspace) const { return pipeline_->Takes(call, workspace); }
  Status Run(const cuda::HeldNormedCall& call, std::span<std::byte> workspace, CudaStream stream) const;
  size_t WorkspaceBytes(int64_t T, int64_t top_k) const { return pipeline_->WorkspaceBytes(T, top_k); }

  MatrixInfo gate_up() const { return gate_up_.info; }
  MatrixInfo down() const { return down_.info; }

 private:
  struct Matrix {
    BiasedTiles tiles;
    MatrixInfo info;
  };
  static Result<Matrix> Upload(const PackedWeight& weight, ConstTensorView bias, cuda::RowOrder order, const MoeOptions& options);

  const cuda::GpuDevice* gpu_ = nullptr;
  Matrix gate_up_, down_;
  std::optional<cuda::MoePipeline> pipeline_;
};

}  // namespace billfish::backend
