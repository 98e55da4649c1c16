// Arguments of the kernels between a model's matrices: embedding, norms, rope, attention, dense activation. Shared with device code.
//
// Activations are fp32 where they are summed (the residual stream, the outputs of the matrices) and bf16 where a tensor core reads them
// (the inputs of the matrices, queries, keys, values). Every tensor is contiguous.
#pragma once

#include "cuda/tile_layout.h"

namespace billfish::cuda {

/// x[t] = table[ids[t]].
struct EmbeddingArgs {
  const void* table = nullptr;  ///< [vocab][H] of bf16 or fp32
  const int32_t* ids = nullptr;
  float* x = nullptr;  ///< [T][H]
  int32_t table_f32 = 0;
  int32_t T = 0, H = 0;
};

/// x[t] += delta[t] where there is a delta; y[t] = bf16(x[t] / sqrt(mean(x[t]^2) + eps) * weight).
struct RmsNormArgs {
  float* x = nullptr;            ///< [T][H]
  const float* delta = nullptr;  ///< [T][H] or null
  const float* weight = nullptr;
  uint16_t* y = nullptr;  ///< [T][H]
  float eps = 0;
  int32_t T = 0, H = 0;
};

/// Splits a row of qkv into heads; normalises and rotates q and k; queries to q, keys and values to their places in the cache.
/// The rows are those of one sequence: token t stands at position *position + t.
struct RopeArgs {
  const float* qkv = nullptr;      ///< [T][heads + 2 kv_heads][D]
  const float* q_norm = nullptr;   ///< [D] or null
  const float* k_norm = nullptr;   ///< [D] or null
  const float* cosines = nullptr;  ///< [capacity][D / 2], attention factor included
  const float* sines = nullptr;    ///< likewise
  const int32_t* position = nullptr;
  uint16_t* q = nullptr;       ///< [T][heads][D]
  uint16_t* keys = nullptr;    ///< [kv_heads][capacity][D]
  uint16_t* values = nullptr;  ///< [kv_heads][capacity][D]
  int64_t capacity = 0;
  float eps = 0;
  int32_t T = 0, heads = 0, kv_heads = 0, D = 0;
};

/// Blocks that share a sequence in decode at most, per tile of query heads: clusters of kDecodeCluster where the GPU has clusters.
inline constexpr int kDecodeSplits = 32;
inline constexpr int kDecodeCluster = 8;
/// Warps of a block of the decode kernel, and the keys of a warp's step.
inline constexpr int kDecodeWarps = 8, kDecodeChunk = 16;
/// Query heads of one kv head that a block handles: the rows of a tensor-core step.
inline constexpr int kAttentionRows = 16;
/// Warps of a block of the prefill kernel, 16 rows each: as many as the registers of an SM hold at least twice for short heads, and one
/// large block that shares its keys among more rows for long ones.
BILLFISH_HD constexpr int PrefillWarps(int D) { return D <= 64 ? 4 : 8; }
/// Keys of a step of either kernel.
inline constexpr int kAttentionKeys = 64;

/// out[t][h] = sum_j p_j v_j / (sum_j p_j + exp(sink[h])), p_j = exp(scale q[t][h] . k_j) over the keys that the token sees: position
/// *position + t and, with a window, the window - 1 before it, else all before it.
struct AttentionArgs {
  const uint16_t* q = nullptr;       ///< [T][heads][D]
  const uint16_t* keys = nullptr;    ///< [kv_heads][capacity][D]
  const uint16_t* values = nullptr;  ///< [kv_heads][capacity][D]
  const float* sinks = nullptr;      ///< [heads] or null
  const int32_t* position = nullptr;
  uint16_t* out = nullptr;  ///< [T][heads][D]
  int64_t capacity = 0;
  int64_t window = 0;  ///< 0 = all
  float scale = 0;
  int32_t T = 0, heads = 0, kv_heads = 0;
};

/// RopeArgs and AttentionArgs at once, for rows that are each the next token of their own sequence: row t stands at positions[t] of slot t,
/// whose keys and values begin t * slot_stride values behind those of slot 0. It writes that place of the cache and reads those before it.
/// The positions and the places before them are read before the previous kernel of the stream has ended: what writes them must have ended
/// before the first kernel of the step starts, as a copy or another graph on the stream has.
struct AttentionDecodeArgs {
  const float* qkv = nullptr;      ///< [T][heads + 2 kv_heads][D]
  const float* q_norm = nullptr;   ///< [D] or null
  const float* k_norm = nullptr;   ///< [D] or null
  const float* cosines = nullptr;  ///< [capacity][D / 2], attention factor included
  const float* sines = nullptr;    ///< likewise
  const float* sinks = nullptr;    ///< [heads] or null
  const int32_t* positions = nullptr;
  uint16_t* keys = nullptr;               ///< of slot 0: [kv_heads][capacity][D]
  uint16_t* values = nullptr;             ///< of slot 0: [kv_heads][capacity][D]
  const uint16_t* next_keys = nullptr;    ///< what the next such call will read, or null: as keys and values
  const uint16_t* next_values = nullptr;  ///< likewise
  uint16_t* out = nullptr;                ///< [T][heads][D]
  float* partial = nullptr;               ///< [T][DecodePartialFloats()]
  int32_t* arrivals = nullptr;            ///< [T][DecodeTiles()] zeros, zero again afterwards
  int64_t capacity = 0;
  int64_t slot_stride = 0;  ///< any for T = 1
  int64_t window = 0;       ///< 0 = all
  float scale = 0, eps = 0;
  int32_t T = 0, heads = 0, kv_heads = 0;
  const void* soon = nullptr;  ///< what a later kernel reads and L2 shall hold by then, or null: most of the GPU's memory is idle now
  int64_t soon_bytes = 0;
  int32_t groups = 1;   ///< clusters that may share a long sequence; set by the launch
  int32_t kv_rows = 1;  ///< heads / kv_heads; set by the launch
};

BILLFISH_HD constexpr int64_t DecodeTiles(int64_t heads, int64_t kv_heads) {
  return kv_heads * ((heads / kv_heads + kAttentionRows - 1) / kAttentionRows);
}
/// A cluster's rows: D sums, the largest score and the sum of weights each.
BILLFISH_HD constexpr int64_t DecodePartialFloats(int64_t heads, int64_t kv_heads, int64_t D) {
  return DecodeTiles(heads, kv_heads) * kDecodeSplits * kAttentionRows * (D + 2);
}
/// Bytes of a key or value in shared memory: an odd number of 16-byte words, so that eight rows of a matrix load meet all banks.
BILLFISH_HD constexpr int AttentionRowBytes(int D) { return 2 * D + 16; }
/// Two stages of keys and values.
BILLFISH_HD constexpr int AttentionSharedBytes(int D) { return 2 * 2 * kAttentionKeys * AttentionRowBytes(D); }

/// A stage of a warp of the decode kernel: a chunk of keys and values, then, in the first, its rows' D sums (eight floats apart), largest
/// score and sum of weights.
BILLFISH_HD constexpr int DecodeWarpBytes(int D) { return kAttentionRows * (4 * (D + 8) + 8); }
/// What the warps need, the queries, the new key and value, and the sums that the blocks
/// of a cluster send each other.
BILLFISH_HD constexpr int DecodeSharedBytes(int D, int stages) {
  return stages * kDecodeWarps * DecodeWarpBytes(D) + (kAttentionRows + 2) * AttentionRowBytes(D) + kAttentionRows * (4 * D + 8);
}

/// h[t] = bf16(silu(gate) * up), gate_up[t] = gate, then up.
struct SwigluArgs {
  const float* gate_up = nullptr;  ///< [T][2I]
  uint16_t* h = nullptr;           ///< [T][I]
  int32_t T = 0, I = 0;
};

/// What a LinearPlainArgs::weight holds.
enum class PlainType : int { kF32 = 0, kF16 = 1, kBF16 = 2 };

/// y[m] = x[m] . weight^T + bias, in fp32.
struct LinearPlainArgs {
  const uint16_t* x = nullptr;   ///< [M][x_stride] bf16
  const void* weight = nullptr;  ///< [N][K]
  const float* bias = nullptr;   ///< [N] or null
  float* y = nullptr;            ///< [M][y_stride]
  int64_t x_stride = 0, y_stride = 0;
  PlainType type = PlainType::kF32;
  int32_t shares = 1;  ///< warps that divide k among them: 1 or 8; set by the launch
  int32_t M = 0, N = 0, K = 0;
};

inline constexpr int kArgmaxBlocks = 128;

/// id[r] = the place of the largest value of row r, the first among equals; not-a-number only if all are, then 0.
struct ArgmaxArgs {
  const float* values = nullptr;  ///< [rows][count]
  uint64_t* partial = nullptr;    ///< [rows][kArgmaxBlocks]
  int32_t* arrivals = nullptr;    ///< [rows] zeros, zero again afterwards
  int32_t* id = nullptr;          ///< [rows]
  int32_t rows = 1;
  int32_t count = 0;
};

}  // namespace billfish::cuda
