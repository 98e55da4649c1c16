// The arithmetic between the matrices, compiled once per instruction set: norms, activation, attention, log-sum-exp.
#pragma once

#include <cstdint>
#include <span>

namespace billfish::model {

/// Rows of queries against one key/value head, by online softmax in fp32:
///   out[r] = sum_j p_j values[j] / (sum_j p_j + sink),  p_j = exp(q[r] . keys[j]),  first[r] <= j <= last[r]
/// The scale of the scores is already in q. A row's result does not depend on the other rows.
struct AttentionTile {
  static constexpr int kRows = 32;   ///< rows of one call at most
  static constexpr int kChunk = 64;  ///< keys per softmax step; the cache holds a multiple of it
  int rows = 0;
  const float* q[kRows] = {};  ///< [qk_dim]
  int64_t first[kRows] = {};
  int64_t last[kRows] = {};
  float sink[kRows] = {};  ///< a score without a value that joins the sum (gpt-oss)
  bool has_sink = false;
  const float* keys = nullptr;    ///< [position / 16][qk_dim][16]
  const float* values = nullptr;  ///< [position][v_stride]
  int64_t qk_dim = 0;
  int64_t v_dim = 0;
  int64_t v_stride = 0;          ///< v_dim rounded up to whole lanes; the padding is zero
  float* accumulator = nullptr;  ///< scratch [kRows][v_stride]
  float* out_f32[kRows] = {};    ///< [v_dim] each; this or out_bf16
  uint16_t* out_bf16[kRows] = {};
  bool bf16 = false;
};

struct VectorOps {
  /// y = x / sqrt(mean(x^2) + eps) * weight over n values, to y_f32 or, if that is null, to y_bf16. y may be x.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* y_f32, uint16_t* y_bf16);
  /// x += delta.
  void (*add)(float* x, const float* delta, int64_t n);
  /// h = silu(gate) * up, to h_f32 or, if that is null, to h_bf16.
  void (*swiglu)(const float* gate, const float* up, int64_t n, float* h_f32, uint16_t* h_bf16);
  /// log(sum(exp(x))) over n >= 1 finite values.
  double (*log_sum_exp)(const float* x, int64_t n);
  void (*attention)(const AttentionTile& tile);
};

/// The tables that this processor can run, best first; the last one runs anywhere.
std::span<const VectorOps* const> AllOps();

/// The best one.
const VectorOps& Ops();

}  // namespace billfish::model
