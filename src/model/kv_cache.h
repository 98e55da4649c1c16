// Keys and values of one sequence for all layers, in the layout that AttentionTile reads, and the scratch of a forward call.
//
//   per layer and kv head   keys    [capacity / 16][head_dim][16]      values    [capacity][v_stride]      fp32
//
// capacity is a multiple of AttentionTile::kChunk. Address space is reserved at once; the system provides pages as they are written.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "billfish/model.h"
#include "model/vector_ops.h"

namespace billfish::model {
struct CudaCache;
}

namespace billfish {

struct KvCache::Impl {
  const void* owner = nullptr;  ///< the Model::Impl that made it
  int64_t layers = 0, kv_heads = 0, head_dim = 0, v_dim = 0, v_stride = 0;
  int64_t length = 0;
  int64_t max_tokens = 0;
  int64_t capacity = 0;  ///< max_tokens rounded up to whole chunks
  size_t bytes = 0;
  std::shared_ptr<float> memory;
  Workspace scratch;                       ///< activations of a forward call
  std::vector<float> last_row;             ///< logits of ForwardGreedy
  std::shared_ptr<model::CudaCache> cuda;  ///< all of it on a GPU, where the fields between max_tokens and last_row are unused

  /// Zeroed memory for max_tokens tokens; kOutOfMemory.
  Status Allocate();
  float* Keys(int64_t layer, int64_t head) const { return memory.get() + (layer * kv_heads + head) * HeadFloats(); }
  float* Values(int64_t layer, int64_t head) const { return Keys(layer, head) + capacity * head_dim; }
  /// Copies one head's key (already rotated) and value to its place.
  void Put(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) const;

 private:
  int64_t HeadFloats() const { return capacity * (head_dim + v_stride); }
};

}  // namespace billfish
