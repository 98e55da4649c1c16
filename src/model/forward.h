// One chunk of tokens through the layers.
#pragma once

#include <span>

#include "model/kv_cache.h"
#include "model/loader.h"
#include "model/step_clock.h"

namespace billfish::model {

/// Runs the tokens (at most Model::kPrefillChunk) at the ends of their sequences and writes their keys and values; the lengths are left to
/// the caller. logits: one row for each token, for the last one only, or without data. Grows cache.scratch and ctx.workspace when a chunk
/// is larger than any before. `clock` (null = none) is started and told of every part.
Status ForwardChunk(const LoadedModel& model, std::span<const float> frequencies, const NewTokens& tokens, KvCache::Impl& cache,
                    TensorView logits, DType activation, ExecContext& ctx, StepClock* clock = nullptr);

}  // namespace billfish::model
