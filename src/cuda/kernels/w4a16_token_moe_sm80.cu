// The expert block of one token in one launch: h[j] = act(W_gate_up[e_j] x + b[e_j]) for each of its slots j, then y = (addend) + sum over
// j of weights[j] (W_down[e_j] h[j] + b[e_j]). An expert that two slots name is read twice.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the TileLayout of both weights    BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_WARPS        warps of a CTA that multiply; an SM has one CTA
//   BF_STAGES       steps that a warp has in its ring
//   BF_ACTIVATION   ActivationKind, 0..5
//
// The work is cut into as many even shares as there are CTAs (token_runs.cuh), runs of gate|up and then of down, and each warp multiplies
// every BF_WARPS-th step of its CTA's share, through a ring of its own, without a break: the weights of down are on their way while other
// CTAs still compute h. Of each run a warp posts its sums, and one more warp, the collector, adds them up and does what is left to do: the
// activation and the row of h, or the sum over slots and y. Another one, the fetcher, waits for x and for each row of h in its turn and
// brings it to shared memory; all but the last rows are there long before they are needed.
//
// A panel of down that several CTAs have a part of is finished by the last one of them. Not all CTAs need to run at a time: whoever has
// waited for a row of h for long does the gate|up of a CTA that has not begun. What is done twice gives the same bits, and the order of
// every sum depends on the ids and the number of CTAs alone.
#define BF_SHIFTS
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/moe_output.cuh"
#include "cuda/kernels/parameters.cuh"
#include "cuda/kernels/token_progress.cuh"
#include "cuda/kernels/token_rows.cuh"
#include "cuda/kernels/token_runs.cuh"
#include "cuda/kernels/token_step.cuh"

namespace {
using namespace billfish::cuda;

constexpr int kWarps = BF_WARPS, kCollector = kWarps, kFetcher = kWarps + 1, kThreads = 32 * (kWarps + 2);
constexpr ActivationKind kKind = static_cast<ActivationKind>(BF_ACTIVATION);
constexpr int kStepBytes = kUnitK * 2;  // of a row of x or h
constexpr int kPosts = 3;               // runs of which sums wait for the collector

using Sums = float2[kWarps][32];  // as PanelSums stores them, by warp

struct Shared {
  Sums posts[kPosts];
  Sums helped;  ///< the same for a share of another CTA
  uint64_t posted[kPosts], taken[kPosts];
  uint64_t x_here, h_here[kMostTokenSlots];
};

// The slots with an expert here, in their order: the rows of h. Lane r knows those of row r.
struct Slots {
  int rows;
  int expert;
  float weight;
  __device__ __forceinline__ Slots(const TokenMoeArgs& args, int lane) {
    expert = lane < args.top_k ? args.ids[lane] - args.first_expert : -1;
    weight = lane < args.top_k ? args.weights[lane] : 0.0f;
    const uint32_t here = __ballot_sync(0xffffffffu, expert >= 0 && expert < args.E);
    rows = __popc(here);
    if (rows == args.top_k) return;
    uint32_t left = here;
    for (int i = 0; i < lane; ++i) left &= left - 1;
    const int from = (__ffs(static_cast<int>(left)) - 1) & 31;
    expert = __shfl_sync(0xffffffffu, expert, from);
    weight = __shfl_sync(0xffffffffu, weight, from);
  }
  __device__ __forceinline__ int Expert(int row) const { return __shfl_sync(0xffffffffu, expert, row); }
  __device__ __forceinline__ float Weight(int row) const { return __shfl_sync(0xffffffffu, weight, row); }
};

__device__ __forceinline__ Run RunOf(const TokenMatrix& matrix, int expert, int panel, int step, int steps) {
  Run run;
  run.unit = matrix.weight + expert * matrix.expert_bytes + static_cast<int64_t>(panel * matrix.units) * kLayout.unit_bytes();
  run.step = step;
  run.steps = steps;
  return run;
}

// What a warp's ring copies.
class WeightWalk {
 public:
  __device__ __forceinline__ WeightWalk(const TokenMoeArgs& args, const Slots& slots, const TokenRuns& runs, int warp)
      : args_(&args), slots_(slots), runs_(runs), mine_(warp) {}
  // By all lanes of the warp.
  __device__ __forceinline__ bool Next(Run& out) {
    TokenRun run;
    int first, steps = 0;
    do {
      if (!runs_.Next(run)) return false;
      steps = mine_.Take(run.steps, first);
    } while (steps == 0);
    out = RunOf(run.down != 0 ? args_->down : args_->gate_up, slots_.Expert(run.row), run.panel, run.step + first, steps);
    return true;
  }

 private:
  const TokenMoeArgs* args_;
  Slots slots_;
  TokenRuns runs_;
  WarpSteps<kWarps> mine_;
};

class OneWalk {
 public:
  __device__ __forceinline__ explicit OneWalk(const Run& run) : run_(run) {}
  __device__ __forceinline__ bool Next(Run& run) {
    run = run_;
    run_.steps = 0;
    return run.steps > 0;
  }

 private:
  Run run_;
};

using Ring = WarpRing<kRowBlocks, BF_STAGES, WeightWalk, kWarps>;
using HelpRing = WarpRing<kRowBlocks, 2, OneWalk, kWarps>;

// Factors and biases of a lane's rows of a panel, those whose sums are its pair.
struct PanelRows {
  float2 factor{1, 1}, bias{};
  __device__ __forceinline__ PanelRows(const TokenMatrix& matrix, int expert, int panel, bool biased, int lane) {
    const int64_t first = (static_cast<int64_t>(expert) * matrix.panels + panel) * kPanelRows + lane / 8 * 16 + lane % 8;
    if (matrix.row_scale != nullptr) factor = {__ldg(matrix.row_scale + first), __ldg(matrix.row_scale + first + 8)};
    if (matrix.bias != nullptr && biased) bias = {__ldg(matrix.bias + first), __ldg(matrix.bias + first + 8)};
  }
  __device__ __forceinline__ float2 Apply(const Sums& sums, int lane) const {
    float2 sum = sums[0][lane];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const float2 v = sums[w][lane];
      sum.x += v.x, sum.y += v.y;
    }
    return {fmaf(factor.x, sum.x, bias.x), fmaf(factor.y, sum.y, bias.y)};
  }
};

__device__ __forceinline__ void StoreH(const TokenMoeArgs& args, int row, int column, float value) {
  if (column >= args.h_stride) return;
  static_cast<uint16_t*>(args.h)[row * args.h_stride + column] = static_cast<uint16_t>(PairFromFloats(value, 0.0f) & 0xffffu);
}

// A panel of gate|up: its columns of h.
__device__ __forceinline__ void StorePanel(const TokenMoeArgs& args, const TokenRun& run, float2 sum, int lane) {
  if constexpr (IsGated(kKind)) {
    StoreH(args, run.row, run.panel * 32 + lane, Activate<kKind>(sum.x, sum.y, args.activation));
  } else {
    const int column = run.panel * kPanelRows + lane / 8 * 16 + lane % 8;
    StoreH(args, run.row, column, Activate<kKind>(sum.x, 0.0f, args.activation));
    StoreH(args, run.row, column + 8, Activate<kKind>(sum.y, 0.0f, args.activation));
  }
}

__device__ __forceinline__ void StoreColumn(const TokenMoeArgs& args, int column, float value) {
  if (column >= args.N) return;
  StoreY(args, column, args.addend == nullptr ? value : LoadAddend(args, column) + value);
}

// A panel of down of which the CTA has some of the steps or all.
class DownPanel {
 public:
  // Ahead of the sums: it takes a while to find out who has the others.
  __device__ __forceinline__ DownPanel(const TokenMoeArgs& args, int rows, int panel, int steps)
      : panel_(panel), steps_(steps), all_(rows * args.down.units), first_(panel * all_), cut_(args, rows), share_(blockIdx.x) {
    if (steps_ == all_) return;
    begins_ = cut_.Before(share_) >= first_;
    while (cut_.Before(share_) > first_) --share_;
  }

  // The CTA's sums: the last CTA of the panel adds all up.
  __device__ __forceinline__ void Finish(const TokenMoeArgs& args, float2 sum, int lane) const {
    if (steps_ != all_) {
      uint32_t* const added = &args.progress->added[share_];
      float2* const sums = reinterpret_cast<float2*>(args.sums) + lane;
      // Of the panels that a share has a part of, one at most begins before it.
      __stcg(sums + (2 * blockIdx.x + (begins_ ? 0 : 1)) * 32, sum);
      __syncwarp();
      uint32_t others = 0;
      if (lane == 0) others = AddAcquireRelease(added, static_cast<uint32_t>(steps_));
      others = __shfl_sync(0xffffffffu, others, 0);
      __syncwarp();  // what lane 0 has acquired is there for all
      if (others + static_cast<uint32_t>(steps_) != static_cast<uint32_t>(all_)) return;
      sum = float2{};
      int at = cut_.Before(share_);
      for (uint32_t share = share_; at < first_ + all_; ++share) {
        const int next = cut_.Before(share + 1);
        if (next > max(at, first_)) {
          const float2 v = __ldcg(sums + (2 * share + (at < first_ ? 1 : 0)) * 32);
          sum.x += v.x, sum.y += v.y;
        }
        at = next;
      }
      if (lane == 0) *added = 0;
    }
    const int column = panel_ * kPanelRows + lane / 8 * 16 + lane % 8;
    StoreColumn(args, column, sum.x);
    StoreColumn(args, column + 8, sum.y);
  }

 private:
  int panel_, steps_, all_, first_;
  DownCut cut_;
  uint32_t share_;  // in which the panel begins
  bool begins_ = false;
};

// The runs of a warp that multiplies.
__device__ __forceinline__ void Multiply(Shared& shared, TokenRuns runs, Ring& ring, uint32_t x, uint32_t h, int h_row_bytes, int warp,
                                         int lane) {
  WarpSteps<kWarps> mine(warp);
  Await(&shared.x_here, 0);
  TokenRun run;
  for (int i = 0; runs.Next(run); ++i) {
    int first;
    const int steps = mine.Take(run.steps, first);
    if (run.down != 0) Await(&shared.h_here[run.row], 0);
    PanelSums sums;
    uint32_t at = (run.down != 0 ? h + run.row * h_row_bytes : x) + (run.step + first) * kStepBytes + lane / 8 * 16;
#pragma unroll 1
    for (int left = steps; left > 0; --left, at += kWarps * kStepBytes) sums.AddStep(ring.Next(), at);
    const int place = i % kPosts, turn = i / kPosts;
    if (turn > 0) Await(&shared.taken[place], turn - 1);
    sums.Store(shared.posts[place][warp], lane);
    Arrive(SharedAddress(&shared.posted[place]));
  }
  WaitCopies<0>();
}

__device__ __forceinline__ void Collect(const TokenMoeArgs& args, Shared& shared, TokenRuns runs, const Slots& slots, int lane) {
  bool counts = false;  // the CTA's part of h is nobody else's
  if (lane == 0) counts = Claim(args.progress, blockIdx.x);
  TokenRun run{};
  int i = 0;
  // The next run's sums, once all are there.
  const auto take = [&] {
    const PanelRows rows(run.down != 0 ? args.down : args.gate_up, slots.Expert(run.row), run.panel, run.step == 0, lane);
    const int place = i % kPosts;
    Await(&shared.posted[place], i / kPosts);
    const float2 sum = rows.Apply(shared.posts[place], lane);
    Arrive(SharedAddress(&shared.taken[place]));
    ++i;
    return sum;
  };
  bool more = runs.Next(run);
  for (; more && run.down == 0; more = runs.Next(run)) {
    StorePanel(args, run, take(), lane);
    __syncwarp();
    if (lane == 0 && counts) AddRelease(&args.progress->stored[run.row], 1);
  }
  while (more) {
    const DownPanel panel(args, slots.rows, run.panel, run.panel_steps);
    float2 y{};
    bool ends = false;
    while (!ends) {
      const float weight = slots.Weight(run.row);
      const float2 sum = take();
      y.x = fmaf(weight, sum.x, y.x), y.y = fmaf(weight, sum.y, y.y);
      ends = run.ends != 0;
      more = runs.Next(run);
    }
    panel.Finish(args, y, lane);
  }
  if (lane == 0) Leave(args.progress, 2 * gridDim.x);
}

// The gate|up of a share that no CTA has begun, by one warp.
__device__ __forceinline__ void Help(const TokenMoeArgs& args, Shared& shared, uint32_t share, const Slots& slots, const uint8_t* ring,
                                     uint32_t x, int lane) {
  TokenRuns runs(args, slots.rows, share);
  TokenRun run;
  for (int before = 0; runs.Next(run) && run.down == 0; before += run.steps) {
    const int expert = slots.Expert(run.row);
#pragma unroll 1
    for (int warp = 0; warp < kWarps; ++warp) {
      const int first = (warp + kWarps - before % kWarps) % kWarps, steps = (run.steps - first + kWarps - 1) / kWarps;
      HelpRing steps_of(OneWalk(RunOf(args.gate_up, expert, run.panel, first, max(steps, 0))), ring, lane);
      steps_of.Begin();
      PanelSums sums;
#pragma unroll 1
      for (int i = 0; i < steps; ++i) sums.AddStep(steps_of.Next(), x + (first + i * kWarps) * kStepBytes + lane / 8 * 16);
      WaitCopies<0>();
      __syncwarp();
      sums.Store(shared.helped[warp], lane);
    }
    __syncwarp();
    StorePanel(args, run, PanelRows(args.gate_up, expert, run.panel, true, lane).Apply(shared.helped, lane), lane);
    __syncwarp();
    if (lane == 0) AddRelease(&args.progress->stored[run.row], 1);
  }
}

// Rows of h to shared memory, each as soon as it is complete.
__device__ __forceinline__ void Fetch(const TokenMoeArgs& args, Shared& shared, const Slots& slots, const uint8_t* help_ring, uint32_t x,
                                      uint32_t h, int h_row_bytes, int lane) {
  constexpr int64_t kPatience = 1 << 18;  // clocks without a row
  for (int row = 0; row < slots.rows; ++row) {
    const auto complete = [&] {
      uint32_t stored = 0;
      if (lane == 0) stored = LoadAcquire(&args.progress->stored[row]);
      return __shfl_sync(0xffffffffu, stored, 0) == static_cast<uint32_t>(args.gate_up.panels);
    };
    const int64_t begin = clock64();
    while (!complete()) {
      if (clock64() - begin < kPatience) continue;
      Await(&shared.x_here, 0);
      const uint32_t share = ClaimAny(args.progress, lane);
      if (share != kNoShare) Help(args, shared, share, slots, help_ring, x, lane);
    }
    CopyTokenRow(static_cast<const uint16_t*>(args.h) + row * args.h_stride, args.down.K, true, h + row * h_row_bytes, h_row_bytes / 16,
                 lane, &shared.h_here[row]);
  }
  if (lane == 0) Leave(args.progress, 2 * gridDim.x);
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1) w4a16_token_moe(const __grid_constant__ TokenMoeArgs args) {
  extern __shared__ __align__(128) uint8_t dynamic[];  // rings, that of Help, x, rows of h
  __shared__ Shared shared;
  FetchParameters(args);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint8_t* const help_ring = dynamic + kWarps * Ring::kBytes;
  const uint32_t x = SharedAddress(help_ring + HelpRing::kBytes), h = x + args.gate_up.units * kStepBytes;
  const int h_row_bytes = args.down.units * kStepBytes;
  AllowDependents();
  if (threadIdx.x < kPosts) {
    InitBarrier(&shared.posted[threadIdx.x], 32 * kWarps);
    InitBarrier(&shared.taken[threadIdx.x], 32);
  }
  if (warp == kFetcher) InitBarrier(&shared.h_here[lane], 32);
  if (threadIdx.x == 32 * kCollector) InitBarrier(&shared.x_here, 32);
  __syncthreads();
  TokenRuns runs(args, args.top_k, blockIdx.x);
  WaitForPredecessor();
  if (warp == kFetcher) {
    CopyTokenRow(args.x, args.gate_up.K, args.x_aligned != 0, x, args.gate_up.units * kStepBytes / 16, lane, &shared.x_here);
  }
  const Slots slots(args, lane);
  if (slots.rows == 0) {
    for (int n = blockIdx.x * kThreads + threadIdx.x; n < args.N; n += gridDim.x * kThreads) StoreColumn(args, n, 0.0f);
    if (warp == kFetcher) Await(&shared.x_here, 0);
    return;
  }
  // As if the others were not there.
  if (slots.rows != args.top_k) runs = TokenRuns(args, slots.rows, blockIdx.x);
  if (warp == kFetcher) {
    Fetch(args, shared, slots, help_ring, x, h, h_row_bytes, lane);
  } else if (warp == kCollector) {
    Collect(args, shared, runs, slots, lane);
  } else {
    Ring ring(WeightWalk(args, slots, runs, warp), dynamic + warp * Ring::kBytes, lane);
    ring.Begin();
    Multiply(shared, runs, ring, x, h, h_row_bytes, warp, lane);
  }
}
