// Rotary position embedding. Source: the rope functions of Hugging Face transformers (default, linear, llama3, yarn).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "billfish/model.h"
#include "model/config_reader.h"

namespace billfish::model {

/// Reads rope_parameters (newer files) or rope_theta and rope_scaling (older ones). `dim` is how many values of a head rotate.
Result<RopeConfig> ReadRope(const ConfigReader& config, int64_t dim);

/// dim / 2 angular frequencies, fp32 as in the source.
std::vector<float> RopeFrequencies(const RopeConfig& rope);

/// Rotates the pairs (i, i + dim/2) of a head: (a, b) -> (a cos - b sin, b cos + a sin). cos and sin: [dim / 2].
inline void Rotate(float* head, const float* cos, const float* sin, int64_t dim) {
  const int64_t half = dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cos[i] - b * sin[i];
    head[half + i] = b * cos[i] + a * sin[i];
  }
}

}  // namespace billfish::model
