// One row of activations by a weight of 16-bit codes of which an SM holds its whole share: y = x . W^T.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_WARPS   warps of a CTA
//   BF_STEPS   steps of 64 columns that a warp takes at most
//
// Such a call is over before a ring would have gone round: every load of a thread is on its way before the row is there, to registers and
// what they do not hold to shared memory, and what comes behind the row is short. The CTA's blocks of 16 rows are one sequence of steps,
// cut into a stretch for each warp, which touches two blocks at most. Each warp brings the part of the row that it needs, for all eight
// columns of the B operand; the sums of the warps are added in their order.
#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/weight.cuh"
#include "cuda/linear_vector_args.h"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = BF_WARPS, kSteps = BF_STEPS;
constexpr int kStepK = kBlockK, kChunks = kStepK / 8;  // 16 bytes of the row
constexpr int kHeld = kSteps < kLinearVectorHeld ? kSteps : kLinearVectorHeld,
              kApart = kSteps - kHeld;  // steps in registers, in shared memory
static_assert(kLayout.code_bits() == 16 && kLayout.unit_k() == kStepK && kLayout.scale_size() == 0);

struct Shared {
  uint4 row[kWarps][kSteps * kChunks];
  float sums[kWarps][2][16];  // of the first and the second block of a warp's stretch
};

__device__ __forceinline__ void Store(const LinearVectorArgs& args, int n, float v) {
  if (args.out == OutType::kF32) {
    static_cast<float*>(args.y)[n] = v;
  } else {
    const uint32_t bits = args.out == OutType::kBF16 ? BF16PairFromFloats(v, v) : F16PairFromFloats(v, v);
    static_cast<uint16_t*>(args.y)[n] = static_cast<uint16_t>(bits);
  }
}
}  // namespace

extern "C" __global__ void __launch_bounds__(32 * kWarps, 1) w16a16_linear_vector(const __grid_constant__ LinearVectorArgs args) {
  extern __shared__ __align__(16) uint8_t codes[];  // [warp][step][plane][lane]: only their lane looks at them
  __shared__ Shared shared;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, cta = blockIdx.x;
  const int blocks = args.blocks + (cta < args.ctas_with_more ? 1 : 0), first_block = cta * args.blocks + min(cta, args.ctas_with_more);
  const int steps = blocks * args.units;
  const auto block_of = [&](int step) { return static_cast<int>(static_cast<uint32_t>(step) * args.per_unit >> 24); };
  const auto begin_of = [&](int w) { return w * steps / kWarps; };

  // Weights first: no kernel writes them.
  const int begin = begin_of(warp), count = begin_of(warp + 1) - begin, block = block_of(begin);
  const int change = (block + 1) * args.units - begin;  // the step with which the second block begins
  const auto rows_of = [&](int b) {
    const int at = first_block + b;
    return args.weight + static_cast<int64_t>(at / 4) * args.units * kLayout.unit_bytes() + at % 4 * 512 + lane * 16;
  };
  const uint8_t* first = rows_of(block) + (begin - block * args.units) * kLayout.unit_bytes();
  const uint8_t* second = rows_of(block + 1) - change * kLayout.unit_bytes();
  const uint64_t policy = EvictFirst();
  const uint32_t apart = SharedAddress(codes) + warp * (kApart * kLinearVectorStepBytes) + lane * 16;
  uint4 words[kHeld][kPlanes];
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    if (s >= count) continue;
    const uint8_t* from = (s < change ? first : second) + s * kLayout.unit_bytes();
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
      if (s < kHeld) {
        words[s][plane] = LoadOnce16(from + plane * kTileThreads * 16, policy);
      } else {
        CopyAsync16(apart + (s - kHeld) * kLinearVectorStepBytes + plane * 512, from + plane * kTileThreads * 16, policy);
      }
    }
  }
  CommitCopies();
  AllowDependents();
  const int n = first_block * 16 + static_cast<int>(threadIdx.x);  // the row that this thread ends
  const bool ends = static_cast<int>(threadIdx.x) < blocks * 16;
  float sum = ends && args.bias != nullptr ? args.bias[n] : 0.0f;
  uint4* row = shared.row[warp];
  WaitForPredecessor();
#pragma unroll
  for (int i = lane; i < kSteps * kChunks; i += 32) {
    const int s = i / kChunks, k = (begin - (block + (s < change ? 0 : 1)) * args.units + s) * kStepK + i % kChunks * 8;
    if (s >= count) continue;
    row[i] = k < args.K ? *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(args.x) + k) : uint4{0, 0, 0, 0};
  }
  __syncwarp();
  // Two sums, so that no step waits for the one before.
  float even[4] = {}, odd[4] = {}, low = 0, high = 0;
  const uint32_t chunk = SharedAddress(row + lane / 8);
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    if (s == kHeld) WaitCopies<0>();
    if (s >= count) continue;
    if (s == change) {
      low = even[0] + odd[0], high = even[2] + odd[2];
#pragma unroll
      for (int i = 0; i < 4; ++i) even[i] = odd[i] = 0;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t b[4];
      LoadMatrices(chunk + (s * kChunks + half * 4) * 16, b);
      uint32_t a[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int plane = 2 * half + i;
        if (s < kHeld) {
          a[i][0] = words[s][plane].x, a[i][1] = words[s][plane].y, a[i][2] = words[s][plane].z, a[i][3] = words[s][plane].w;
        } else {
          LoadShared<16>(apart + (s - kHeld) * kLinearVectorStepBytes + plane * 512, a[i]);
        }
      }
      Mma(even, a[0], b);
      Mma(odd, a[1], b + 2);
    }
  }
  if (lane % 4 == 0) {
    float(*sums)[16] = shared.sums[warp];
    const int last = change < count ? 1 : 0;
    sums[last][lane / 4] = even[0] + odd[0], sums[last][lane / 4 + 8] = even[2] + odd[2];
    sums[1 - last][lane / 4] = low, sums[1 - last][lane / 4 + 8] = high;
  }
  __syncthreads();
  if (!ends || n >= args.N) return;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const int which = static_cast<int>(threadIdx.x) / 16 - block_of(begin_of(w));
    if (which == 0 || which == 1) sum += shared.sums[w][which][threadIdx.x % 16];
  }
  Store(args, n, sum);
}
