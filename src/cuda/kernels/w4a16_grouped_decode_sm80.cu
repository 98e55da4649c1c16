// Grouped linear for very few slots, weights streamed once: gate|up with its activation, or down. It starts sooner than
// w4a16_grouped_stream, which streams faster.
//
//   BF_CODES BF_SCALE BF_GROUP BF_ZEROS BF_WIDE   the weight's TileLayout          BF_ACT   0 = bf16, 1 = fp16 activations
//   BF_ROWS         rows of a tile at most: 8 or 16
//   BF_PANELS       panels of 64 packed rows a block works on at a time, 1 or 2: they share the rows of x
//   BF_WARPS        warps of a block, at least 4: more of them where there are few items
//   BF_STAGES       units that a warp has in its ring          BF_BLOCKS   blocks an SM
//   BF_ACTIVATION   ActivationKind: 0..5 writes h in 16 bits (gated kinds: rows q and q + 8 of a thread are gate and up of one column),
//                   -1 writes f32
//
// An item is (tile of one expert's rows, BF_PANELS panels). The warps of a block split the units of an item, unit u to warp u mod
// BF_WARPS: each warp multiplies whole panels, so that it decodes with no help, and keeps its own ring of units and of the slices of x that
// belong to them. Nothing in the main loop waits for another warp. At the end of an item the warps add up through shared memory, warp w < 4
// the 16-row block w of every panel, always in the order of the warps; the rings are already filling with the next item. Blocks stride over
// the items in a fixed order: the result depends on nothing but the routing.
#define BF_SHIFTS
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/async_copy.cuh"
#include "cuda/kernels/dependent_launch.cuh"
#include "cuda/kernels/direct_work.cuh"
#include "cuda/kernels/weight.cuh"

namespace {
using namespace billfish::cuda;

constexpr uint32_t kAll = 0xffffffffu;
constexpr int kWarps = BF_WARPS;
constexpr int kRows = BF_ROWS, kPanels = BF_PANELS, kStages = BF_STAGES;
constexpr int kTiles = kRows / 8;  // n8 tiles
constexpr ActivationKind kKind = static_cast<ActivationKind>(BF_ACTIVATION);

constexpr int kGroup = kLayout.group == 0 ? kUnitK : kLayout.group;
constexpr int kUnitChunks = kLayout.unit_bytes() / 16;
constexpr int kRowBytes = kUnitK * 2;  // of a row's slice of x
constexpr int kRowChunks = kRowBytes / 16;
constexpr int kRowStep = 32 / kRowChunks;     // rows that a warp copies at a time
constexpr int kRowCopies = kRows / kRowStep;  // copies of x a lane and unit
constexpr int kStageBytes = kPanels * kLayout.unit_bytes() + kRows * kUnitK * 2;

// Work of the block: in shared memory where the kernel sorts for itself.
struct WorkList {
  const TileWork* work;
  const int32_t* source;
  int items;  // tiles * groups of panels
};

// 16 bytes, or zeros; then `global` is not read.
__device__ __forceinline__ void CopyAsync16Unless(bool zero, uint32_t shared, const void* global) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; cp.async.cg.shared.global [%0], [%1], 16, p; }" ::"r"(shared), "l"(global),
               "r"(static_cast<uint32_t>(zero))
               : "memory");
}

// One warp's way through its units: what it copies next. Addresses are carried along; a unit costs little more than its copies.
class Copier {
 public:
  __device__ Copier(const GroupedDecodeArgs& args, const WorkList& list, uint32_t ring, int warp, int lane)
      : args_(args), list_(list), ring_(ring), to_(ring), warp_(warp), lane_(lane), policy_(EvictFirst()) {
    groups_ = (args.panels + kPanels - 1) / kPanels;
    item_ = warp < args.units ? static_cast<int>(blockIdx.x) : list.items;
    const TileWork work = WorkOf(item_);
    next_work_ = WorkOf(item_ + static_cast<int>(gridDim.x));
    SourcesOf(work, next_source_);
    Enter(work.expert);
  }

  __device__ __forceinline__ void Copy() {
    if (item_ < list_.items) {
      CopyWeights();
      CopyRows();
      Advance();
    }
    CommitCopies();
  }
  /// The same in two steps: weights alone, for units whose x may not be there yet, by a copy of this object; then their x.
  __device__ __forceinline__ void CopyOnlyWeights() {
    if (item_ >= list_.items) return;
    CopyWeights();
    Advance();
  }
  __device__ __forceinline__ void CopyOnlyRows() {
    if (item_ < list_.items) {
      CopyRows();
      Advance();
    }
    CommitCopies();
  }

 private:
  __device__ __forceinline__ void CopyWeights() const {
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      const uint32_t to = to_ + p * kLayout.unit_bytes() + lane_ * 16;
#pragma unroll
      for (int i = 0; i < kUnitChunks / 32; ++i) CopyAsync16(to + i * 512, panel_[p] + i * 512, policy_);
      if constexpr (kUnitChunks % 32 != 0) {
        constexpr int kRest = kUnitChunks / 32 * 512;
        if (lane_ < kUnitChunks % 32) CopyAsync16(to + kRest, panel_[p] + kRest, policy_);
      }
    }
  }

  // Rows that the tile does not have become zero.
  __device__ __forceinline__ void CopyRows() const {
    const int row = lane_ / kRowChunks, slot = lane_ % kRowChunks ^ row;
    const uint32_t to = to_ + kPanels * kLayout.unit_bytes() + row * kRowBytes;
    const auto place = [&](int i) { return to + i * kRowStep * kRowBytes + (slot ^ (i * kRowStep & 7)) * 16; };
    if (args_.x_aligned != 0) {
#pragma unroll
      for (int i = 0; i < kRowCopies; ++i) CopyAsync16Unless(k_left_ <= 0 || absent_ >> i & 1, place(i), row_[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kRowCopies; ++i) CopyUnaligned(place(i), row_[i], absent_ >> i & 1 ? 0 : min(k_left_, 8));
    }
  }

  __device__ __forceinline__ void Advance() {
    to_ = to_ + kStageBytes == ring_ + kStages * kStageBytes ? ring_ : to_ + kStageBytes;
    units_left_ -= kWarps;
    if (units_left_ > 0) {
      k_left_ -= kWarps * kUnitK;
#pragma unroll
      for (int i = 0; i < kRowCopies; ++i) row_[i] += kWarps * kUnitK;
#pragma unroll
      for (int p = 0; p < kPanels; ++p) panel_[p] += kWarps * kLayout.unit_bytes();
      return;
    }
    item_ += static_cast<int>(gridDim.x);
    Enter(next_expert_);
  }

  __device__ __forceinline__ TileWork WorkOf(int item) const { return item < list_.items ? list_.work[item / groups_] : TileWork{0, 0, 0}; }

  // The rows of x that this lane copies; -1 = none.
  __device__ __forceinline__ void SourcesOf(const TileWork& work, int (&source)[kRowCopies]) const {
#pragma unroll
    for (int i = 0; i < kRowCopies; ++i) {
      const int r = lane_ / kRowChunks + kRowStep * i;
      source[i] = -1;
      if (r < work.rows) source[i] = list_.source == nullptr ? work.first_row + r : list_.source[work.first_row + r];
    }
  }

  // Begins item_. The rows of the next item are asked for one item ahead, its tile two.
  __device__ __forceinline__ void Enter(int expert_id) {
    if (item_ >= list_.items) return;
    units_left_ = args_.units - warp_;
    const int k = warp_ * kUnitK + lane_ % kRowChunks * 8;
    k_left_ = args_.K - k;
    const int panel = item_ % groups_ * kPanels;
    const int64_t panel_bytes = static_cast<int64_t>(args_.units) * kLayout.unit_bytes();
    const uint8_t* expert = args_.weight + expert_id * args_.expert_bytes + warp_ * kLayout.unit_bytes() + lane_ * 16;
#pragma unroll
    for (int p = 0; p < kPanels; ++p) panel_[p] = expert + min(panel + p, args_.panels - 1) * panel_bytes;
    absent_ = 0;
#pragma unroll
    for (int i = 0; i < kRowCopies; ++i) {
      if (next_source_[i] < 0) absent_ |= 1u << i;
      row_[i] = static_cast<const uint16_t*>(args_.x) + max(next_source_[i], 0) * args_.x_stride + k;
    }
    next_expert_ = next_work_.expert;
    SourcesOf(next_work_, next_source_);
    next_work_ = WorkOf(item_ + 2 * static_cast<int>(gridDim.x));
  }

  const GroupedDecodeArgs& args_;
  const WorkList& list_;
  uint32_t ring_, to_;
  int warp_, lane_;
  uint64_t policy_;
  int groups_, item_, units_left_ = 0, k_left_ = 0;
  int next_expert_ = 0;
  TileWork next_work_;  ///< of the item after the next
  const uint8_t* panel_[kPanels];
  const uint16_t* row_[kRowCopies];
  uint32_t absent_ = 0;          ///< bit i: the tile has no row i
  int next_source_[kRowCopies];  ///< rows of x, -1 = none
};

// acc += W x^T of one unit for the first kActive n8 tiles.
template <int kActive>
__device__ __forceinline__ void MultiplyUnit(const uint8_t* stage, int lane, float (&acc)[kPanels][4][kTiles][4]) {
  const int q = lane / 4;
  uint32_t b[kUnitBlocks * kPlanes][kActive][2];
  const uint32_t rows = SharedAddress(stage) + kPanels * kLayout.unit_bytes();
#pragma unroll
  for (int n = 0; n < kActive; ++n) {
#pragma unroll
    for (int i = 0; i < kUnitBlocks * kPlanes / 2; ++i) {
      const int r = n * 8 + lane % 8, chunk = 4 * i + lane / 8;
      uint32_t v[4];
      LoadMatrices(rows + (r * kRowChunks + (chunk ^ (r & 7))) * 16, v);
      b[2 * i][n][0] = v[0], b[2 * i][n][1] = v[1], b[2 * i + 1][n][0] = v[2], b[2 * i + 1][n][1] = v[3];
    }
  }
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
    const uint8_t* unit = stage + p * kLayout.unit_bytes();
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const RowScales scales = LoadRowScales(unit, w, q);
      float part[kActive][4] = {};
#pragma unroll
      for (int block = 0; block < kUnitBlocks; ++block) {
        uint32_t words[kBlockWords];
        LoadBlockWords(unit + block * kLayout.block_bytes(), w * 32 + lane, words);
#pragma unroll
        for (int plane = 0; plane < kPlanes; ++plane) {
          uint32_t a[4];
          DecodePlane(words, scales, block, plane, a);
#pragma unroll
          for (int n = 0; n < kActive; ++n) Mma(kScaleOnAccumulator ? part[n] : acc[p][w][n], a, b[block * kPlanes + plane][n]);
          if constexpr (kScaleOnAccumulator) {
            const int k = block * kBlockK + plane * 16 + 16;
            if (k % kGroup == 0) {
              const int group = k / kGroup - 1;
              const float low = AccumulatorScale(scales, 0, group), high = AccumulatorScale(scales, 1, group);
#pragma unroll
              for (int n = 0; n < kActive; ++n) {
                acc[p][w][n][0] += low * part[n][0], acc[p][w][n][1] += low * part[n][1];
                acc[p][w][n][2] += high * part[n][2], acc[p][w][n][3] += high * part[n][3];
                part[n][0] = part[n][1] = part[n][2] = part[n][3] = 0;
              }
            }
          }
        }
      }
    }
  }
}

__device__ __forceinline__ void StoreColumn(const GroupedDecodeArgs& args, int row, int column, float value) {
  if (column >= args.N) return;
  const int64_t i = row * args.out_stride + column;
  if constexpr (kKind == ActivationKind::kNone) {
    static_cast<float*>(args.out)[i] = value;
  } else {
    static_cast<uint16_t*>(args.out)[i] = static_cast<uint16_t>(PairFromFloats(value, 0.0f) & 0xffffu);
  }
}

// Sums of 16-row block `w` of a panel, rows q and q + 8, of token 2 * (lane % 4) + c of n8 tile n.
__device__ __forceinline__ void Finish(const GroupedDecodeArgs& args, int panel, int w, int lane, int row, float low, float high) {
  const int q = lane / 4;
  if constexpr (IsGated(kKind)) {
    StoreColumn(args, row, panel * 32 + w * 8 + q, Activate<kKind>(low, high, args.activation));
  } else if constexpr (kKind != ActivationKind::kNone) {
    StoreColumn(args, row, panel * 64 + w * 16 + q, Activate<kKind>(low, 0.0f, args.activation));
    StoreColumn(args, row, panel * 64 + w * 16 + 8 + q, Activate<kKind>(high, 0.0f, args.activation));
  } else {
    StoreColumn(args, row, panel * 64 + w * 16 + q, low);
    StoreColumn(args, row, panel * 64 + w * 16 + 8 + q, high);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kWarps * 32, BF_BLOCKS) w4a16_grouped_decode(const __grid_constant__ GroupedDecodeArgs args) {
  extern __shared__ uint8_t shared[];
  __shared__ DirectWork direct;
  __shared__ float4 parts[kWarps][4][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint8_t* const ring = shared + warp * kStages * kStageBytes;

  if (args.early_weights == 0) {
    WaitForPredecessor();
    AllowDependents();
  }
  if constexpr (kKind != ActivationKind::kNone) {
    if (blockIdx.x == 0) {
      for (int i = threadIdx.x; i < args.arrival_count; i += blockDim.x) args.arrivals[i] = 0;
    }
  }
  WorkList list{args.work, args.source, 0};
  const int groups = (args.panels + kPanels - 1) / kPanels;
  if (args.ids != nullptr) {
    if (warp == 0) SortDirect(args, lane, direct);
    __syncthreads();
    list = WorkList{direct.work, direct.source, direct.tiles * groups};
  } else {
    list.items = *args.work_count * groups;
  }

  Copier copier(args, list, SharedAddress(ring), warp, lane);
  if (args.early_weights != 0) {
    Copier ahead = copier;
    for (int s = 0; s < kStages - 1; ++s) ahead.CopyOnlyWeights();
    WaitForPredecessor();
    AllowDependents();
    for (int s = 0; s < kStages - 1; ++s) copier.CopyOnlyRows();
  } else {
    for (int s = 0; s < kStages - 1; ++s) copier.Copy();
  }

  const int step = static_cast<int>(gridDim.x);
  int stage = 0;
  TileWork next_work = static_cast<int>(blockIdx.x) < list.items ? list.work[blockIdx.x / groups] : TileWork{0, 0, 0};
  for (int item = static_cast<int>(blockIdx.x); item < list.items; item += step) {
    const TileWork work = next_work;
    if (item + step < list.items) next_work = list.work[(item + step) / groups];
    const int panel = item % groups * kPanels;
    // The factors and biases of the rows that this warp finishes, asked for long before they are needed.
    float factor[kPanels][2], bias[kPanels][2];
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      const int64_t packed_panel = static_cast<int64_t>(work.expert) * args.panels + min(panel + p, args.panels - 1);
      const int64_t row = packed_panel * kPanelRows + warp % 4 * 16 + lane / 4;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        factor[p][half] = args.row_scale == nullptr ? 1.0f : __ldg(args.row_scale + row + 8 * half);
        bias[p][half] = args.bias == nullptr ? 0.0f : __ldg(args.bias + row + 8 * half);
      }
    }

    float acc[kPanels][4][kTiles][4] = {};
    for (int unit = warp; unit < args.units; unit += kWarps) {
      WaitCopies<kStages - 2>();
      __syncwarp();
      copier.Copy();
      const uint8_t* filled = ring + stage * kStageBytes;
      stage = stage + 1 == kStages ? 0 : stage + 1;
      if constexpr (kTiles == 2) {
        if (work.rows <= 8) {
          MultiplyUnit<1>(filled, lane, acc);
        } else {
          MultiplyUnit<2>(filled, lane, acc);
        }
      } else {
        MultiplyUnit<kTiles>(filled, lane, acc);
      }
    }

#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      if (panel + p >= args.panels) continue;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        if (n * 8 >= work.rows) continue;
        __syncthreads();  // the sums before have been read
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const float* v = acc[p][w][n];
          parts[warp][w][lane] = float4{v[0], v[1], v[2], v[3]};
        }
        __syncthreads();
        if (kWarps > 4 && warp >= 4) continue;
        float4 sum = parts[0][warp][lane];
#pragma unroll
        for (int other = 1; other < kWarps; ++other) {
          const float4 v = parts[other][warp][lane];
          sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
        const int token = n * 8 + lane % 4 * 2, row = work.first_row + token;
        const float f0 = factor[p][0], f1 = factor[p][1], b0 = bias[p][0], b1 = bias[p][1];
        if (token < work.rows) Finish(args, panel + p, warp, lane, row, fmaf(f0, sum.x, b0), fmaf(f1, sum.z, b1));
        if (token + 1 < work.rows) Finish(args, panel + p, warp, lane, row + 1, fmaf(f0, sum.y, b0), fmaf(f1, sum.w, b1));
      }
      if constexpr (kKind == ActivationKind::kNone) {
        if (args.arrivals != nullptr && (kWarps == 4 || warp < 4)) {
          const int block = (panel + p) * 4 + warp;
          if (IsLastTile(args.arrivals + block, direct.tiles, lane)) Combine(args, direct, block * 16, lane);
        }
      }
    }
  }

  if constexpr (kKind == ActivationKind::kNone) {
    if (args.arrivals != nullptr && direct.tiles == 0) {  // every slot is skipped
      for (int block = static_cast<int>(blockIdx.x) * kWarps + warp; block < args.panels * 4; block += step * kWarps) {
        Combine(args, direct, block * 16, lane);
      }
    }
  }
  WaitCopies<0>();
}
