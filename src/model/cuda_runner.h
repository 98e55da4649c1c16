// The forward call of a model on one GPU: its small tensors there, and the order of the kernels.
//
// The residual stream is fp32; every matrix reads bf16 and answers in fp32, which the next step (norm, rope, activation, residual sum)
// rounds once. A decode step is a recorded graph that reads ids and positions from device memory.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "billfish/moe.h"
#include "cuda/model_ops.h"
#include "cuda/route.h"
#include "model/cuda_cache.h"
#include "model/kv_cache.h"
#include "model/loader.h"
#include "model/step_clock.h"

namespace billfish::model {

class CudaRunner {
 public:
  /// Uploads norms, sinks and the embedding and frees the embedding on the host. `model` must outlive the runner, at its address.
  /// kUnsupported for heads that the attention kernels do not take.
  static Result<std::unique_ptr<CudaRunner>> Create(LoadedModel& model, std::vector<float> frequencies, Device device, bool record_decode);

  Result<CudaCache> NewCache(int64_t max_tokens, int64_t sequences) const;

  /// Tokens (at most kCudaPrefillChunk of one sequence, or one of each) as ForwardChunk takes them. logits: on the host (the call waits
  /// for them), on the device (it does not), or without data.
  Status Forward(const NewTokens& tokens, KvCache::Impl& cache, TensorView logits, ExecContext& ctx) const;
  /// The same, then the id of the largest logit of the last token of each sequence.
  Status ForwardGreedy(const NewTokens& tokens, KvCache::Impl& cache, std::span<int32_t> next, ExecContext& ctx) const;
  /// See Model::ProfileStep. Writes the places after the last tokens of the cache, which no call reads before it writes them.
  Result<StepProfile> ProfileStep(const NewTokens& tokens, KvCache::Impl& cache, int repetitions, ExecContext& ctx) const;

 private:
  struct LayerVectors {
    const float *attention_norm = nullptr, *mlp_norm = nullptr, *q_norm = nullptr, *k_norm = nullptr, *sinks = nullptr;
  };
  class Call;

  Status UploadVectors();
  Status UploadEmbedding(Embedding& embedding);
  size_t WorkspaceBytes(int64_t tokens, int64_t logit_rows) const;
  Status RunLast(const NewTokens& tokens, KvCache::Impl& cache, bool greedy, CudaStream stream) const;
  Status Choose(const CudaCache& cache, int64_t rows, CudaStream stream) const;
  Status DeliverRows(int64_t count, CudaCache& cache, TensorView logits, CudaStream stream) const;

  LoadedModel* model_ = nullptr;
  const cuda::GpuDevice* gpu_ = nullptr;
  Device device_;
  std::vector<float> frequencies_;
  bool record_decode_ = true;
  cuda::ModelOps ops_;
  Router router_;
  std::optional<cuda::Router> norm_router_;  ///< the same rule in one launch with the norm and the matrix before it
  DeviceBuffer vectors_, embedding_;
  bool embedding_f32_ = false;
  std::vector<LayerVectors> layers_;
  const float* final_norm_ = nullptr;
};

}  // namespace billfish::model
