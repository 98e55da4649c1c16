#include "model/cuda_cache.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/status_macros.h"
#include "cuda/driver_api.h"
#include "cuda/model_args.h"
#include "cuda/norm_rows_args.h"

namespace billfish::model {
namespace {

// Angles in fp32, as on the CPU: both run the same model.
Result<DeviceBuffer> RopeTables(const ModelConfig& config, std::span<const float> frequencies, Device device, int64_t positions) {
  const auto half = static_cast<int64_t>(frequencies.size());
  const auto factor = static_cast<float>(config.rope.attention_factor);
  std::vector<float> tables(static_cast<size_t>(2 * positions * half));
  for (int64_t position = 0; position < positions; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * frequencies[static_cast<size_t>(i)];
      tables[static_cast<size_t>(position * half + i)] = std::cos(angle) * factor;
      tables[static_cast<size_t>((positions + position) * half + i)] = std::sin(angle) * factor;
    }
  }
  BILLFISH_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(device, tables.size() * sizeof(float)));
  const auto count = static_cast<int64_t>(tables.size());
  BILLFISH_RETURN_IF_ERROR(CopyTensor({buffer.data(), DType::kF32, {count}, device}, {tables.data(), DType::kF32, {count}}));
  return buffer;
}

}  // namespace

size_t CudaScratch::Carve(const ModelConfig& c, std::byte* base) {
  size_t used = 0;
  const auto take = [&]<class T>(T*& array, int64_t count) {
    array = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
  };
  take(x, tokens * c.hidden);
  take(delta, tokens * c.hidden);
  take(other_x, std::min(tokens, cuda::kMostNormedRows) * c.hidden);
  take(other_delta, c.hidden);
  take(input, tokens * std::max({c.hidden, c.heads * c.v_head_dim, c.intermediate}));
  take(qkv, tokens * (c.heads + 2 * c.kv_heads) * c.head_dim);
  take(q, tokens * c.heads * c.head_dim);
  take(gate_up, tokens * 2 * c.intermediate);
  take(router, tokens * c.experts);
  take(expert_weights, tokens * c.top_k);
  take(expert_ids, tokens * c.top_k);
  take(logits, logit_rows * c.vocab);
  take(partial, std::min(tokens, sequences) * cuda::DecodePartialFloats(c.heads, c.kv_heads, c.head_dim));
  take(argmax_partial, std::min(logit_rows, sequences) * cuda::kArgmaxBlocks);
  return used;
}

Result<CudaCache> CudaCache::Create(const ModelConfig& config, std::span<const float> frequencies, Device device, int64_t max_tokens,
                                    int64_t sequences, int64_t chunk) {
  CudaCache cache;
  cache.device = device;
  cache.sequences = sequences;
  cache.capacity = max_tokens;
  cache.chunk = chunk;
  cache.scratch.sequences = sequences;
  cache.sequence_values = config.kv_heads * max_tokens * config.head_dim;
  const auto values = static_cast<size_t>(sequences * cache.sequence_values) * 2 * config.layers.size();
  BILLFISH_ASSIGN_OR_RETURN(cache.memory, DeviceBuffer::Allocate(device, values * sizeof(uint16_t)));
  BILLFISH_ASSIGN_OR_RETURN(cache.rope, RopeTables(config, frequencies, device, max_tokens));
  const int64_t words = chunk + sequences * (3 + cuda::DecodeTiles(config.heads, config.kv_heads));
  const std::vector<int32_t> zeros(static_cast<size_t>(words));
  BILLFISH_ASSIGN_OR_RETURN(cache.state, DeviceBuffer::Allocate(device, zeros.size() * sizeof(int32_t)));
  BILLFISH_RETURN_IF_ERROR(CopyTensor({cache.state.data(), DType::kI32, {words}, device}, {zeros.data(), DType::kI32, {words}}));
  cache.begin_words.reserve(static_cast<size_t>(sequences + chunk));
  BILLFISH_RETURN_IF_ERROR(cache.ReserveRows(config, 1));
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuDevice::Get(device.index));
  BILLFISH_ASSIGN_OR_RETURN(cache.choices, cuda::PinnedBuffer::Allocate(*gpu, static_cast<size_t>(sequences) * sizeof(int32_t)));
  BILLFISH_ASSIGN_OR_RETURN(cache.recorder, Stream::Create(device));
  return cache;
}

Status CudaCache::Reserve(const ModelConfig& config, int64_t tokens, int64_t logit_rows, size_t workspace_bytes) {
  if (tokens > scratch.tokens || logit_rows > scratch.logit_rows) {
    CudaScratch wanted;
    wanted.sequences = sequences;
    wanted.tokens = std::max(tokens, scratch.tokens);
    wanted.logit_rows = std::max(logit_rows, scratch.logit_rows);
    const size_t bytes = wanted.Carve(config, nullptr);
    decode.clear();
    scratch = CudaScratch();
    buffers = DeviceBuffer();  // given back first: both need not fit
    BILLFISH_ASSIGN_OR_RETURN(buffers, DeviceBuffer::Allocate(device, bytes));
    wanted.Carve(config, buffers.data());
    scratch = wanted;
  }
  if (workspace_bytes > workspace.bytes()) {
    decode.clear();
    workspace = DeviceBuffer();
    BILLFISH_ASSIGN_OR_RETURN(workspace, DeviceBuffer::Allocate(device, workspace_bytes));
  }
  return OkStatus();
}

Status CudaCache::ReserveRows(const ModelConfig& config, int64_t count) {
  if (count <= host_rows) return OkStatus();
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuDevice::Get(device.index));
  BILLFISH_ASSIGN_OR_RETURN(rows, cuda::PinnedBuffer::Allocate(*gpu, static_cast<size_t>(count * config.vocab) * sizeof(float)));
  host_rows = count;
  return OkStatus();
}

Status CudaCache::Begin(std::span<const int32_t> tokens, std::span<const int64_t> lengths, CudaStream stream) {
  begin_words.clear();
  for (const int64_t length : lengths) begin_words.push_back(static_cast<int32_t>(length));
  begin_words.insert(begin_words.end(), tokens.begin(), tokens.end());
  BILLFISH_ASSIGN_OR_RETURN(const cuda::DriverApi* api, cuda::Driver());
  // The driver keeps a copy of pageable memory before it returns.
  return cuda::Check(api->MemcpyHtoDAsync(reinterpret_cast<cuda::CUdeviceptr>(positions()), begin_words.data(),
                                          begin_words.size() * sizeof(int32_t), static_cast<cuda::CUstream>(stream)),
                     "copying token ids to the device");
}

}  // namespace billfish::model
