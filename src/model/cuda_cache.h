// The part of a KvCache that lies on a GPU: keys and values, rope tables, the buffers of a forward call and the recorded decode steps.
//
//   per layer   keys [sequences][kv_heads][capacity][head_dim], then values likewise      bf16
//
// bf16 as in the activations of the matrices: a key is rounded once, after norm and rotation. Memory is taken at once.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "billfish/cuda.h"
#include "billfish/model.h"
#include "cuda/pinned_buffer.h"
#include "model/kv_cache.h"

namespace billfish::model {

/// Device pointers into one block of memory, for at most `tokens` tokens, as many of different sequences, and `logit_rows` rows of logits.
struct CudaScratch {
  int64_t tokens = 0, sequences = 1, logit_rows = 0;
  float *x = nullptr, *delta = nullptr;  ///< [tokens][hidden]
  float* other_x = nullptr;              ///< [at most kMostNormedRows][hidden]: kernels that fuse the sum into it move x there and back
  float* other_delta = nullptr;          ///< [hidden]: for kernels of one token that read delta to their end
  uint16_t* input = nullptr;             ///< what the next matrix reads, [tokens][widest]
  float* qkv = nullptr;
  uint16_t* q = nullptr;
  float* gate_up = nullptr;
  float *router = nullptr, *expert_weights = nullptr;
  int32_t* expert_ids = nullptr;
  float* logits = nullptr;   ///< [logit_rows][vocab]
  float* partial = nullptr;  ///< of the attention of a token of each sequence
  uint64_t* argmax_partial = nullptr;

  /// Lays the arrays out from `base`, or only measures where that is null. Returns the bytes.
  size_t Carve(const ModelConfig& config, std::byte* base);
};

struct CudaCache {
  Device device;
  int64_t sequences = 1, capacity = 0;
  int64_t sequence_values = 0;  ///< 16-bit values of one layer's keys of one sequence
  DeviceBuffer memory;
  DeviceBuffer rope;       ///< cosines, then sines, [capacity][half] each
  DeviceBuffer state;      ///< int32: positions, token ids of a chunk, then counters that kernels leave zero
  DeviceBuffer buffers;    ///< what `scratch` points into
  DeviceBuffer workspace;  ///< of the matrices
  CudaScratch scratch;
  cuda::PinnedBuffer choices;  ///< [sequences] int32 on the host: argmax_ids once a greedy call has ended
  cuda::PinnedBuffer rows;     ///< host_rows rows of logits on the host
  int64_t host_rows = 0;
  std::vector<int32_t> begin_words;  ///< what Begin copies: kept, so that a decode step allocates nothing
  Stream recorder;                   ///< records decode steps, never runs them
  struct Step {
    int64_t first, rows;  ///< one token of each of these sequences, logits to scratch.logits
    bool greedy;          ///< then also the choices
    // NOLINTNEXTLINE(modernize-use-nullptr): in what the compiler writes
    auto operator<=>(const Step&) const = default;
  };
  std::map<Step, CudaGraph> decode;  ///< recorded when first used

  /// Everything but the buffers of a call. `frequencies` are those of rope.
  static Result<CudaCache> Create(const ModelConfig& config, std::span<const float> frequencies, Device device, int64_t max_tokens,
                                  int64_t sequences, int64_t chunk);
  /// Buffers for a call of `tokens` tokens that leaves logit_rows rows in the scratch. A growth forgets the recorded steps.
  Status Reserve(const ModelConfig& config, int64_t tokens, int64_t logit_rows, size_t workspace_bytes);
  /// Memory of the host for so many rows of logits.
  Status ReserveRows(const ModelConfig& config, int64_t count);
  /// Places ids and the positions of all sequences, their lengths, where the kernels read them.
  Status Begin(std::span<const int32_t> ids, std::span<const int64_t> lengths, CudaStream stream);

  uint16_t* Keys(int64_t layer, int64_t sequence) const {
    return reinterpret_cast<uint16_t*>(memory.data()) + (layer * 2 * sequences + sequence) * sequence_values;
  }
  uint16_t* Values(int64_t layer, int64_t sequence) const { return Keys(layer, sequence) + sequences * sequence_values; }
  int32_t* positions() const { return reinterpret_cast<int32_t*>(state.data()); }  ///< [sequences], as are argmax_ids and its arrivals
  int32_t* ids() const { return positions() + sequences; }
  int32_t* argmax_ids() const { return ids() + chunk; }
  int32_t* argmax_arrivals() const { return argmax_ids() + sequences; }
  int32_t* attention_arrivals() const { return argmax_arrivals() + sequences; }
  int64_t chunk = 0;
  size_t bytes() const { return memory.bytes() + rope.bytes(); }
};

}  // namespace billfish::model
