// Keys and values of sequences for all layers, in the layout that AttentionTile reads, and the scratch of a forward call.
//
//   per sequence, layer and kv head   keys    [capacity / 16][head_dim][16]      values    [capacity][v_stride]      fp32
//
// capacity is a multiple of AttentionTile::kChunk. Address space is reserved at once; the system provides pages as they are written.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "billfish/model.h"
#include "model/vector_ops.h"

namespace billfish::model {

struct CudaCache;

/// The ids of a call and the sequences of the cache that they continue: `sequences` of them from `first` on, as many ids for each.
struct NewTokens {
  std::span<const int32_t> ids;
  int64_t first = 0, sequences = 1;
  int64_t rows() const { return static_cast<int64_t>(ids.size()); }
  int64_t per_sequence() const { return rows() / sequences; }
  int64_t SequenceOf(int64_t row) const { return first + row / per_sequence(); }
};

}  // namespace billfish::model

namespace billfish {

struct KvCache::Impl {
  const void* owner = nullptr;  ///< the Model::Impl that made it
  int64_t layers = 0, kv_heads = 0, head_dim = 0, v_dim = 0, v_stride = 0;
  std::vector<int64_t> lengths;  ///< of each sequence
  int64_t max_tokens = 0;        ///< of each sequence
  int64_t capacity = 0;          ///< max_tokens rounded up to whole chunks
  size_t bytes = 0;
  std::shared_ptr<float> memory;
  Workspace scratch;                       ///< activations of a forward call
  std::vector<float> last_rows;            ///< logits of greedy calls
  std::shared_ptr<model::CudaCache> cuda;  ///< all of it on a GPU, where the fields between max_tokens and last_rows are unused

  int64_t sequences() const { return static_cast<int64_t>(lengths.size()); }
  int64_t& length(int64_t sequence) { return lengths[static_cast<size_t>(sequence)]; }
  /// kInvalidArgument unless it is one of these.
  Status CheckSequence(int64_t sequence) const;
  /// Zeroed memory for max_tokens tokens of each sequence; kOutOfMemory.
  Status Allocate();
  float* Keys(int64_t sequence, int64_t layer, int64_t head) const {
    return memory.get() + ((sequence * layers + layer) * kv_heads + head) * HeadFloats();
  }
  float* Values(int64_t sequence, int64_t layer, int64_t head) const { return Keys(sequence, layer, head) + capacity * head_dim; }
  /// Copies one head's key (already rotated) and value to its place.
  void Put(int64_t sequence, int64_t layer, int64_t head, int64_t position, const float* key, const float* value) const;

 private:
  int64_t HeadFloats() const { return capacity * (head_dim + v_stride); }
};

}  // namespace billfish
