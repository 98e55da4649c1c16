// A row of qkv to its heads: q and k are normalised (where the model does) and rotated, q goes to a buffer, k and v into the cache, all
// rounded to bf16 once. A warp handles one head of one token.
//
// The position, the angles and the norms are read while the previous kernel ends: none of its stream's kernels writes them.
// The rotation pairs i with i + rotated / 2: (a, b) -> (a cos - b sin, b cos + a sin).
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/model_args.h"

namespace {
using namespace billfish::cuda;

// Pairs of a head that a lane holds: heads of up to 256 values.
constexpr int kPairs = 4;
}  // namespace

extern "C" __global__ void __launch_bounds__(256) rope(const __grid_constant__ RopeArgs args) {
  const int lane = threadIdx.x % 32, all_heads = args.heads + 2 * args.kv_heads, D = args.D, half = D / 2;
  const int head = static_cast<int>(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  const int64_t t = blockIdx.y;
  AllowDependents();
  if (head >= all_heads) return;
  const bool is_query = head < args.heads, is_key = !is_query && head < args.heads + args.kv_heads;
  const float* norm = is_query ? args.q_norm : is_key ? args.k_norm : nullptr;
  const int64_t position = *args.position + t;
  float cosine[kPairs], sine[kPairs], norm_a[kPairs], norm_b[kPairs];
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const int i = lane + 32 * j;
    cosine[j] = 1.0f, sine[j] = 0.0f, norm_a[j] = 1.0f, norm_b[j] = 1.0f;
    if (i >= half) continue;
    if (is_query || is_key) cosine[j] = args.cosines[position * half + i], sine[j] = args.sines[position * half + i];
    if (norm != nullptr) norm_a[j] = norm[i], norm_b[j] = norm[half + i];
  }
  WaitForPredecessor();
  const float* in = args.qkv + (t * all_heads + head) * D;
  float a[kPairs] = {}, b[kPairs] = {};
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const int i = lane + 32 * j;
    if (i < half) a[j] = in[i], b[j] = in[half + i];
  }
  if (norm != nullptr) {
    float squares = 0;
#pragma unroll
    for (int j = 0; j < kPairs; ++j) squares += a[j] * a[j] + b[j] * b[j];
    const float factor = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(D) + args.eps);
#pragma unroll
    for (int j = 0; j < kPairs; ++j) a[j] *= factor * norm_a[j], b[j] *= factor * norm_b[j];
  }
  uint16_t* out = is_query ? args.q + (t * args.heads + head) * D
                  : is_key ? args.keys + ((head - args.heads) * args.capacity + position) * D
                           : args.values + ((head - args.heads - args.kv_heads) * args.capacity + position) * D;
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const int i = lane + 32 * j;
    if (i >= half) continue;
    const uint32_t pair = BF16PairFromFloats(a[j] * cosine[j] - b[j] * sine[j], b[j] * cosine[j] + a[j] * sine[j]);
    out[i] = static_cast<uint16_t>(pair & 0xffffu);
    out[half + i] = static_cast<uint16_t>(pair >> 16);
  }
}
