// One chunk of tokens through the layers.
#pragma once

#include <span>

#include "model/kv_cache.h"
#include "model/loader.h"
#include "model/step_clock.h"

namespace billfish::model {

/// Runs ids (at most Model::kPrefillChunk) at positions cache.length .. and writes their keys and values; the length is left to the
/// caller. logits: [T,V], [1,V] (the last token) or without data. Grows cache.scratch and ctx.workspace when a chunk is larger than
/// any before. `clock` (null = none) is started and told of every part.
Status ForwardChunk(const LoadedModel& model, std::span<const float> frequencies, std::span<const int32_t> ids, KvCache::Impl& cache,
                    TensorView logits, DType activation, ExecContext& ctx, StepClock* clock = nullptr);

}  // namespace billfish::model
