// A row of qkv to its heads: q and k are normalised (where the model does) and rotated, q goes to a buffer, k and v into the cache, all
// rounded to bf16 once. A warp handles one head of one token.
//
// The rotation pairs i with i + rotated / 2: (a, b) -> (a cos - b sin, b cos + a sin).
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/model_args.h"

extern "C" __global__ void __launch_bounds__(256) rope(const __grid_constant__ billfish::cuda::RopeArgs args) {
  using namespace billfish::cuda;
  const int lane = threadIdx.x % 32, all_heads = args.heads + 2 * args.kv_heads, D = args.D;
  const int head = static_cast<int>(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  const int64_t t = blockIdx.y;
  AllowDependents();
  WaitForPredecessor();
  if (head >= all_heads) return;
  const float* in = args.qkv + (t * all_heads + head) * D;
  const int64_t position = *args.position + t;
  const bool is_query = head < args.heads, is_key = !is_query && head < args.heads + args.kv_heads;
  uint16_t* out = is_query ? args.q + (t * args.heads + head) * D
                  : is_key ? args.keys + ((head - args.heads) * args.capacity + position) * D
                           : args.values + ((head - args.heads - args.kv_heads) * args.capacity + position) * D;
  const auto store = [&](int i, float v) { out[i] = static_cast<uint16_t>(BF16PairFromFloats(v, 0.0f)); };
  if (!is_query && !is_key) {
    for (int i = lane; i < D; i += 32) store(i, in[i]);
    return;
  }
  const float* norm = is_query ? args.q_norm : args.k_norm;
  float factor = 1.0f;
  if (norm != nullptr) {
    float squares = 0;
    for (int i = lane; i < D; i += 32) squares += in[i] * in[i];
    factor = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(D) + args.eps);
  }
  const auto value = [&](int i) { return norm == nullptr ? in[i] : in[i] * factor * norm[i]; };
  const int half = args.rotated / 2;
  for (int i = lane; i < half; i += 32) {
    const float a = value(i), b = value(half + i);
    const float c = args.cosines[position * half + i], s = args.sines[position * half + i];
    store(i, a * c - b * s);
    store(half + i, b * c + a * s);
  }
  for (int i = args.rotated + lane; i < D; i += 32) store(i, value(i));
}
