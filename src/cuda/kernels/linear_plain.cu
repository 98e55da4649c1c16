// y = x . W^T + bias for matrices that a checkpoint keeps in fp32 or fp16, which beside bf16 activations no tensor core takes, and for
// small ones in bf16, mostly routers, whose few rows would leave most of the GPU idle in the kernels for large ones.
//
// A block of eight warps computes eight outputs of kRows rows of x in fp32, or one if shares == 8: the warps then divide k among them.
// Lanes stride over k, eight values at a time where rows are aligned for that. Weights of the first step arrive while the previous kernel
// ends.
#define BF_ACT 0
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/model_args.h"

namespace {
using namespace billfish::cuda;

constexpr int kRows = 4;

__device__ __forceinline__ float Weight(const LinearPlainArgs& args, int64_t i) {
  if (args.type == PlainType::kF32) return static_cast<const float*>(args.weight)[i];
  const uint32_t bits = static_cast<const uint16_t*>(args.weight)[i];
  return args.type == PlainType::kF16 ? FloatFromF16(bits) : FloatFromBF16(bits);
}

// Eight weights as they are stored.
struct Eight {
  uint4 low, high;
};

__device__ __forceinline__ Eight LoadEight(const LinearPlainArgs& args, int64_t i) {
  if (args.type == PlainType::kF32) {
    const uint4* p = reinterpret_cast<const uint4*>(static_cast<const float*>(args.weight) + i);
    return {p[0], p[1]};
  }
  return {*reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(args.weight) + i), {}};
}

__device__ __forceinline__ void Decode(const LinearPlainArgs& args, const Eight& stored, float (&w)[8]) {
  const uint32_t words[8] = {stored.low.x,  stored.low.y,  stored.low.z,  stored.low.w,
                             stored.high.x, stored.high.y, stored.high.z, stored.high.w};
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (args.type == PlainType::kF32) {
      w[j] = AsFloat(words[j]);
    } else {
      const uint32_t bits = j % 2 == 0 ? words[j / 2] & 0xffffu : words[j / 2] >> 16;
      w[j] = args.type == PlainType::kF16 ? FloatFromF16(bits) : FloatFromBF16(bits);
    }
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(256) linear_plain(const __grid_constant__ LinearPlainArgs args) {
  __shared__ float part[8][kRows];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, shares = args.shares;
  const int n = static_cast<int>(blockIdx.x * (8 / shares) + warp / shares), share = warp % shares;
  const int first = static_cast<int>(blockIdx.y) * kRows;
  const bool inside = n < args.N;
  const int64_t row = static_cast<int64_t>(inside ? n : 0) * args.K;
  AllowDependents();
  const bool aligned = args.K % 8 == 0 && args.x_stride % 8 == 0 && reinterpret_cast<uint64_t>(args.x) % 16 == 0;
  const int begin = (aligned ? 8 : 1) * (lane + 32 * share), step = (aligned ? 8 : 1) * 32 * shares;
  Eight next{};
  if (aligned && begin < args.K) next = LoadEight(args, row + begin);
  WaitForPredecessor();
  const uint16_t* x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) x[r] = args.x + min(first + r, args.M - 1) * args.x_stride;
  const int rows = min(kRows, args.M - first);
  float sum[kRows] = {};
  for (int k = begin; k < args.K; k += step) {
    if (!aligned) {
      const float w = Weight(args, row + k);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum[r] = fmaf(w, FloatFromBF16(x[r][k]), sum[r]);
      continue;
    }
    float w[8];
    Decode(args, next, w);
    if (k + step < args.K) next = LoadEight(args, row + k + step);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
      const uint4 v = *reinterpret_cast<const uint4*>(x[r] + k);
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sum[r] = fmaf(w[2 * j], LowOfPair(words[j]), sum[r]);
        sum[r] = fmaf(w[2 * j + 1], HighOfPair(words[j]), sum[r]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    sum[r] = WarpSum(sum[r]);
    if (lane == 0) part[warp][r] = sum[r];
  }
  __syncthreads();
  if (!inside || share != 0 || lane >= rows) return;
  float total = args.bias == nullptr ? 0.0f : args.bias[n];
  for (int s = 0; s < shares; ++s) total += part[warp + s][lane];
  args.y[(first + lane) * args.y_stride + n] = total;
}
