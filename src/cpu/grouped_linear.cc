// Schedule of one call
//
//   block     at most kBlockRows rows are scheduled at a time, so the workspace does not grow with R
//   segment   rows of one expert inside a block, at most as many as fit most of L2 once staged, in multiples of 8
//   staging   rounding to int8 is worth sharing: all threads stage the block, cut over rows, and meet. Other forms are copies: every
//             thread stages a segment for itself when it comes to it, because fetching lines that another core has just written takes
//             longer (16 rows of 4096 on two cores that share no cache: 160 us of 700 us) and a copy needs no meeting.
//   item      a segment x a run of panels, numbered segment by segment
//   lane      an equal share of consecutive items. Thread i takes the items of lane i in order, so that it reads one long stream and its
//             prefetches past the end of an item are of use; when its lane is empty it helps with the next one.
#include "cpu/grouped_linear.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <string>

#include "core/parallel.h"
#include "core/rounding.h"
#include "core/status_macros.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace billfish::cpu {
namespace {

constexpr int64_t kBlockRows = 1024;  // of staged rows that threads share
constexpr int64_t kPrivateBlockRows = 8192;
constexpr size_t kStagedBudget = size_t{576} << 10;                    // of a segment, in a 1 MiB L2 that 4 KiB pages fill unevenly
constexpr int64_t kInlineStageElements = 1 << 15;                      // below this a parallel region costs more than staging
constexpr int64_t kItemsPerThread = 32, kManyRowItemsPerThread = 128;  // the last item is what other threads wait for

/// Bytes of y from which its lines are written past the caches. Below, what reads y next finds it there.
constexpr int64_t kStreamedOutput = 4 << 20;

constexpr size_t kPage = 4096;

std::byte* AlignUp(std::byte* p, size_t alignment) {
  return reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(p) + alignment - 1) / alignment * alignment);
}

int64_t SegmentRows(const PanelLayout& layout, size_t row_bytes) {
  const int64_t fit = int64_t(kStagedBudget / (row_bytes * size_t(layout.slabs()))) / 8 * 8;
  return std::clamp<int64_t>(fit, 16, kMaxPanelRows);
}

/// Makes what a thread wrote past the caches visible before it says that it has finished.
void DrainStreams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

bool SharesStaging(Staged staged) { return staged == Staged::kInt8; }

/// The workspace: an area of staged rows for all threads (shared) | for each thread scratch and its own staged rows | lanes | segments.
/// Threads are a page apart: prefetchers run ahead to the end of a page, and fetching a line that another core writes takes it away.
struct Areas {
  Areas(const PanelLayout& layout, Staged staged, int64_t rows)
      : row_bytes(StagedRowBytes(staged)), segment_rows(SegmentRows(layout, row_bytes)) {
    const bool shared = SharesStaging(staged);
    block_rows = std::min(rows, shared ? kBlockRows : kPrivateBlockRows);
    slab_stride = PanelLayout::Padded(size_t(shared ? block_rows : std::min(block_rows, segment_rows)) * row_bytes);
    const size_t bytes = slab_stride * size_t(layout.slabs());
    shared_bytes = shared ? RoundUp(bytes, kPage) : 0;
    thread_bytes = RoundUp(kPanelScratchBytes + (shared ? 0 : bytes), kPage) + kPage;
  }
  size_t row_bytes;
  int64_t segment_rows, block_rows;
  size_t slab_stride, shared_bytes, thread_bytes;
};

}  // namespace

struct GroupedLinear::Segment {
  int64_t expert, begin, rows;  ///< begin counts from the block's first row
};

struct alignas(4 * kLine) GroupedLinear::Lane {
  std::atomic<int64_t> next;
  int64_t end;
};

Result<GroupedLinear> GroupedLinear::Create(const CpuWeight* weight, DType x, Precision precision, std::string_view forced) {
  if (x != DType::kBF16 && x != DType::kF32) {
    return Status(ErrorCode::kInvalidArgument, "CPU linear: activations are " + std::string(DTypeName(x)) + "; pass BF16 or F32");
  }
  GroupedLinear linear;
  BILLFISH_ASSIGN_OR_RETURN(linear.kernel_, ChooseKernel({weight->layout(), x, precision}, forced));
  linear.weight_ = weight;
  linear.panel_ = linear.kernel_->panel(weight->layout());
  linear.x_ = x;
  return linear;
}

size_t GroupedLinear::workspace_bytes(int64_t rows, int threads) const {
  const PanelLayout& layout = weight_->layout();
  const Areas areas(layout, kernel_->staged, rows);
  const int64_t segments = areas.block_rows / areas.segment_rows + std::min(layout.E, areas.block_rows) + 1;
  return areas.shared_bytes + size_t(threads) * (areas.thread_bytes + sizeof(Lane)) +
         PanelLayout::Padded(size_t(segments) * sizeof(Segment)) + kPage + 2 * kLine;
}

Status GroupedLinear::Run(ConstTensorView x, const GroupedRows& groups, const float* bias, TensorView y, std::span<std::byte> workspace,
                          int threads) const {
  const PanelLayout& layout = weight_->layout();
  const int64_t rows = groups.rows;
  const bool y_bf16 = y.dtype() == DType::kBF16;
  if (x.dtype() != x_ || (!y_bf16 && y.dtype() != DType::kF32)) {
    return {ErrorCode::kInvalidArgument, "CPU linear: x is " + x.ToString() + " and y is " + y.ToString() + "; x must be " +
                                             std::string(DTypeName(x_)) + " as at Create, y F32 or BF16"};
  }
  if (x.rank() != 2 || y.rank() != 2 || x.dim(1) != layout.K || y.dim(1) != layout.N || y.dim(0) < rows || x.stride(1) != 1 ||
      y.stride(1) != 1 || (groups.source == nullptr && x.dim(0) < rows)) {
    return {ErrorCode::kShapeMismatch, "CPU linear: x " + x.ToString() + " times a weight of N = " + std::to_string(layout.N) +
                                           ", K = " + std::to_string(layout.K) + " for " + std::to_string(rows) + " rows does not give y " +
                                           y.ToString()};
  }
  const bool grouped = !groups.offsets.empty();
  if (grouped ? int64_t(groups.offsets.size()) != layout.E + 1 || groups.offsets.front() != 0 || groups.offsets.back() != rows ||
                    !std::is_sorted(groups.offsets.begin(), groups.offsets.end())
              : layout.E != 1) {
    return {ErrorCode::kInvalidArgument, "CPU linear: row offsets must rise from 0 to " + std::to_string(rows) + " in " +
                                             std::to_string(layout.E + 1) + " steps, one more than experts"};
  }
  if (workspace.size() < workspace_bytes(rows, threads)) {
    return {ErrorCode::kOutOfMemory, "CPU linear: the workspace has " + std::to_string(workspace.size()) + " bytes, " +
                                         std::to_string(workspace_bytes(rows, threads)) + " are needed"};
  }

  const Areas areas(layout, kernel_->staged, rows);
  const bool shared = SharesStaging(kernel_->staged);
  const bool y_streams = rows * layout.N * (y_bf16 ? 2 : 4) >= kStreamedOutput;
  std::byte* const staged = AlignUp(workspace.data(), kPage);
  std::byte* const private_bytes = staged + areas.shared_bytes;
  Lane* const lanes = reinterpret_cast<Lane*>(private_bytes + size_t(threads) * areas.thread_bytes);
  for (int i = 0; i < threads; ++i) new (lanes + i) Lane;
  Segment* const segments = reinterpret_cast<Segment*>(lanes + threads);
  const int64_t panels = layout.panels();

  int64_t expert = 0;
  for (int64_t first = 0; first < rows; first += areas.block_rows) {
    const int64_t last = std::min(first + areas.block_rows, rows);
    int64_t count = 0;
    for (int64_t r = first; r < last;) {
      while (grouped && groups.offsets[size_t(expert) + 1] <= r) ++expert;
      const int64_t expert_end = grouped ? std::min<int64_t>(groups.offsets[size_t(expert) + 1], last) : last;
      const int64_t pieces = DivideUp(expert_end - r, areas.segment_rows);
      const int64_t piece = RoundUp(DivideUp(expert_end - r, pieces), 8);
      const int64_t end = std::min(r + piece, expert_end);
      segments[count++] = {expert, r - first, end - r};
      r = end;
    }

    const auto stage_rows = [&](int64_t expert_of, int64_t origin, int64_t begin, int64_t end, std::byte* to) {
      StageJob job{&layout,           x.data(), x.stride(0), x_ == DType::kBF16, nullptr, weight_->columns(expert_of), to,
                   areas.slab_stride, begin,    end};
      if (groups.source != nullptr) {
        job.source = groups.source + origin;
      } else {
        job.x = static_cast<const std::byte*>(x.data()) + origin * x.stride(0) * (DTypeBits(x_) / 8);
      }
      kernel_->stage(job);
    };
    const auto stage_block = [&](int64_t begin, int64_t end) {
      if (!weight_->columns_per_expert()) return stage_rows(0, first, begin, end, staged);
      for (int64_t s = 0; s < count; ++s) {
        const int64_t from = std::max(begin, segments[s].begin), to = std::min(end, segments[s].begin + segments[s].rows);
        if (from < to) stage_rows(segments[s].expert, first, from, to, staged);
      }
    };
    if (shared) ParallelFor((last - first) * layout.K <= kInlineStageElements ? 1 : threads, last - first, 1, stage_block);

    const int64_t jobs = count * panels;
    const int64_t run =
        std::clamp<int64_t>(jobs / (threads * (last - first >= 16 * count ? kManyRowItemsPerThread : kItemsPerThread)), 1, panels);
    const int64_t items_per_segment = DivideUp(panels, run);
    const int64_t items = count * items_per_segment;
    const int workers = int(std::min<int64_t>(threads, items));
    for (int i = 0; i < workers; ++i) {
      lanes[i].next.store(items * i / workers, std::memory_order_relaxed);
      lanes[i].end = items * (i + 1) / workers;
    }
    const auto take = [&](int worker, int* offset) -> int64_t {  // -1 when every lane is empty
      for (; *offset < workers; ++*offset) {
        Lane& lane = lanes[(worker + *offset) % workers];
        const int64_t item = lane.next.fetch_add(1, std::memory_order_relaxed);
        if (item < lane.end) return item;
      }
      return -1;
    };
    const auto work = [&](int thread) {
      int offset = 0;
      int64_t staged_segment = -1;
      std::byte* const scratch = private_bytes + size_t(thread) * areas.thread_bytes;
      std::byte* const own = shared ? staged : scratch + kPanelScratchBytes;
      for (int64_t item; (item = take(thread, &offset)) >= 0;) {
        const int64_t s = item / items_per_segment;
        const Segment& segment = segments[s];
        if (!shared && s != staged_segment) {
          stage_rows(segment.expert, first + segment.begin, 0, segment.rows, own);
          staged_segment = s;
        }
        const int64_t begin = item % items_per_segment * run, end = std::min(begin + run, panels);
        const int64_t row = first + segment.begin;
        for (int64_t p = begin; p < end; ++p) {
          PanelJob job{};
          job.layout = &layout;
          job.panel = weight_->panel(segment.expert, p);
          job.row_factor = weight_->factors(segment.expert, p);
          job.bias = bias == nullptr ? nullptr : bias + segment.expert * layout.N + p * kPanelRows;
          job.x = shared ? own + size_t(segment.begin) * areas.row_bytes : own;
          job.slab_stride = areas.slab_stride;
          job.rows = int(segment.rows);
          job.cols = int(std::min<int64_t>(kPanelRows, layout.N - p * kPanelRows));
          job.y = static_cast<std::byte*>(y.mutable_data()) + (row * y.stride(0) + p * kPanelRows) * (y_bf16 ? 2 : 4);
          job.y_stride = y.stride(0);
          job.y_bf16 = y_bf16;
          job.y_streams = y_streams;
          job.scratch = scratch;
          panel_(job);
        }
      }
      if (y_streams) DrainStreams();
    };
    RunOnThreads(workers, work);
  }
  return OkStatus();
}

}  // namespace billfish::cpu
