// What the parts of the dense decode kernel have in common: steps, and what of a weight a CTA and a warp have.
// w4a16_linear_decode_sm80.cu has the overview.
#pragma once

#include "cuda/kernels/weight.cuh"
#include "cuda/linear_decode_args.h"

namespace billfish::cuda {

/// Units of a step, which a warp takes at a time: enough work to make up for going on to the next.
inline constexpr int kStepUnits = BF_STEP_UNITS;
inline constexpr int kStepK = kStepUnits * kUnitK, kStepBytes = kStepUnits * kLayout.unit_bytes();

/// a / b for a of 0 to 2^21 and b > 0, in a quarter of the instructions of a division of integers: a + 0.5 is no multiple of b, and too far
/// from one for the quotient to be rounded across it.
__device__ __forceinline__ int Quotient(int a, int b) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(static_cast<float>(b)));
  return static_cast<int>((static_cast<float>(a) + 0.5f) * inverse);
}

/// The number of this warp in a form that tells the compiler that it is that of all lanes: what follows from it is computed once for the
/// warp, beside the pipe that decoding is bound by, and takes no registers of lanes.
__device__ __forceinline__ int WarpOfBlock() { return __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 32, 0); }

/// What CTA `rank` of a cluster has of K: the steps [first, first + count).
struct Slice {
  int first, count;
  __device__ __forceinline__ Slice(const LinearDecodeArgs& args, int rank) {
    const int steps = (args.units + kStepUnits - 1) / kStepUnits;
    first = rank * steps >> args.splits_log2;
    count = ((rank + 1) * steps >> args.splits_log2) - first;
  }
};

/// A CTA has the steps of its slice for each of the `count` blocks of rows from `first` on: one sequence, block by block, of which each
/// team of warps has a stretch, [begin, end). So a warp goes along K without a break, whatever the blocks are.
template <int kTeams>
class Stretch {
 public:
  int begin, end;
  /// `blocks` blocks of `steps` steps each; none is 0. Without a division: the first copies wait for this.
  __device__ __forceinline__ Stretch(int blocks, int steps, int team) : total_(blocks * steps) {
    begin = total_ < kTeams ? min(team, total_) : team * total_ / kTeams;
    end = total_ < kTeams ? min(team + 1, total_) : (team + 1) * total_ / kTeams;
  }
  /// The team that has place `at` of the sequence.
  __device__ __forceinline__ int TeamAt(int at) const { return total_ < kTeams ? at : Quotient(at * kTeams + kTeams - 1, total_); }

 private:
  int total_;
};

/// The blocks of rows of a cluster: some clusters have one more than the others.
struct Blocks {
  int first, count;
  __device__ __forceinline__ Blocks(const LinearDecodeArgs& args, int cluster) {
    first = cluster * args.blocks + min(cluster, args.clusters_with_more);
    count = args.blocks + (cluster < args.clusters_with_more ? 1 : 0);
  }
};

}  // namespace billfish::cuda
