// The part of a KvCache that lies on a GPU: keys and values, rope tables, the buffers of a forward call and the recorded decode step.
//
//   per layer   keys [kv_heads][capacity][head_dim], then values likewise      bf16
//
// bf16 as in the activations of the matrices: a key is rounded once, after norm and rotation. Memory is taken at once.
#pragma once

#include <cstdint>
#include <span>

#include "billfish/cuda.h"
#include "billfish/model.h"
#include "cuda/pinned_buffer.h"

namespace billfish::model {

/// Device pointers into one block of memory, for at most `tokens` tokens and `logit_rows` rows of logits.
struct CudaScratch {
  int64_t tokens = 0, logit_rows = 0;
  float *x = nullptr, *delta = nullptr;  ///< [tokens][hidden]
  uint16_t* input = nullptr;             ///< what the next matrix reads, [tokens][widest]
  float* qkv = nullptr;
  uint16_t* q = nullptr;
  float* gate_up = nullptr;
  float *router = nullptr, *expert_weights = nullptr;
  int32_t* expert_ids = nullptr;
  float* logits = nullptr;   ///< [logit_rows][vocab]
  float* partial = nullptr;  ///< of the attention of one token
  uint64_t* argmax_partial = nullptr;

  /// Lays the arrays out from `base`, or only measures where that is null. Returns the bytes.
  size_t Carve(const ModelConfig& config, std::byte* base);
};

struct CudaCache {
  Device device;
  int64_t capacity = 0, layer_values = 0;  ///< 16-bit values of one layer's keys
  DeviceBuffer memory;
  DeviceBuffer rope;       ///< cosines, then sines, [capacity][half] each
  DeviceBuffer state;      ///< int32: the position, token ids of a chunk, then counters that kernels leave zero
  DeviceBuffer buffers;    ///< what `scratch` points into
  DeviceBuffer workspace;  ///< of the matrices
  CudaScratch scratch;
  cuda::PinnedBuffer row;  ///< one row of logits on the host
  Stream recorder;         ///< records the decode step, never runs it
  CudaGraph decode;        ///< one token, logits to scratch.logits; empty until first used

  /// Everything but the buffers of a call. `frequencies` are those of rope.
  static Result<CudaCache> Create(const ModelConfig& config, std::span<const float> frequencies, Device device, int64_t max_tokens,
                                  int64_t chunk);
  /// Buffers for a call of `tokens` tokens that leaves logit_rows rows in the scratch. A growth forgets the recorded step.
  Status Reserve(const ModelConfig& config, int64_t tokens, int64_t logit_rows, size_t workspace_bytes);
  /// Places ids and their position where the kernels read them.
  Status Begin(std::span<const int32_t> ids, int64_t position, CudaStream stream) const;

  uint16_t* Keys(int64_t layer) const { return reinterpret_cast<uint16_t*>(memory.data()) + layer * 2 * layer_values; }
  uint16_t* Values(int64_t layer) const { return Keys(layer) + layer_values; }
  int32_t* position() const { return reinterpret_cast<int32_t*>(state.data()); }
  int32_t* ids() const { return position() + 1; }
  int32_t* argmax_id() const { return ids() + chunk; }
  int32_t* argmax_arrivals() const { return argmax_id() + 1; }
  int32_t* attention_arrivals() const { return argmax_arrivals() + 1; }
  int64_t chunk = 0;
  size_t bytes() const { return memory.bytes() + rope.bytes(); }
};

}  // namespace billfish::model
