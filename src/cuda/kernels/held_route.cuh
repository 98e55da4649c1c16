// Logits of one row for every CTA: each is computed by one warp of one of them, and told to all.
//
//   BF_VALUES   see route.cuh
#pragma once

#include "cuda/held_moe_args.h"
#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/reduce.cuh"
#include "cuda/kernels/route.cuh"
#include "cuda/kernels/tagged_words.cuh"

namespace billfish::cuda {

/// The logit of an expert whose row of the router lies in shared memory. By one warp; in all lanes.
__device__ __forceinline__ float LogitOf(const HeldNormedArgs& args, int expert, uint32_t row, uint32_t x, int lane) {
  float sums[4] = {};
#pragma unroll 4
  for (int k = lane * 8; k < args.K; k += 256) {
    uint32_t w[4], v[4];
    LoadShared<16>(row + k * 2, w);
    LoadShared<16>(x + k * 2, v);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      sums[j] = fmaf(AsFloat(w[j] << 16), AsFloat(v[j] << 16), sums[j]);
      sums[j] = fmaf(AsFloat(w[j] & 0xffff0000u), AsFloat(v[j] & 0xffff0000u), sums[j]);
    }
  }
  const float logit = WarpSum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  return args.logit_bias == nullptr ? logit : logit + __ldg(args.logit_bias + expert);
}

__device__ __forceinline__ void CopyRouterRow(const HeldNormedArgs& args, int expert, uint32_t to, int lane) {
  const uint16_t* from = args.router + static_cast<int64_t>(expert) * args.K;
#pragma unroll 1
  for (int k = lane * 8; k < args.K; k += 256) CopyAsync16(to + k * 2, from + k);
  CommitCopies();
}

/// The logit of the thread's expert, from whoever computed it; whole warps call. `room`: where one may compute what is missing.
__device__ __forceinline__ float AwaitLogit(const HeldNormedArgs& args, int expert, uint32_t room, uint32_t x, uint32_t launch, int lane) {
  const bool wanted = expert < args.route.E;
  uint64_t* from = args.exchange->logits + (wanted ? expert : 0);
  float logit = 0;
  bool missing = wanted;
#pragma unroll 1
  for (int polls = 0;; ++polls) {
    const uint64_t word = LoadWord(from);
    if (missing && IsFrom(word, launch)) logit = AsFloat(static_cast<uint32_t>(word)), missing = false;
    const uint32_t lanes = __ballot_sync(kAll, missing);
    if (lanes == 0) return logit;
    if (polls < kHeldPatience) continue;
    const int helped = expert - lane + __ffs(static_cast<int>(lanes)) - 1;
    CopyRouterRow(args, helped, room, lane);
    WaitCopies<0>();
    __syncwarp();
    const float found = LogitOf(args, helped, room, x, lane);
    __syncwarp();
    if (expert == helped) {
      StoreWord(from, __float_as_uint(found), launch);
      logit = found, missing = false;
    }
  }
}

}  // namespace billfish::cuda
