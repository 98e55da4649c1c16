// MoePipeline: the expert block on the device, from ids and weights to y, with no word to the host in between.
//
//   sort      slots by expert and a list of tiles
//   gate|up   h[r] = act(W_gate_up[e] x[token of r] + b)           16-bit, in the type of x
//   down      out[r] = W_down[e] h[r] + b_down                     fp32; bf16 where fp32 would take more than kMostF32Bytes
//   combine   y[t] = (addend[t]) + sum_j weights[t][j] out[row of slot t, j]
//
// One token takes a single launch where the weights that it needs fit in the shared memory of the device (HeldMoe), or x and h do
// (TokenMoe). Else one token, or two of small experts, takes two: the decode kernels sort for themselves and down combines. Few rows an
// expert go to GroupedDecode, many to GroupedTile; the shapes decide. Create plans; Run only launches, so that it may be captured in a
// graph. May be used by several threads and streams at once, each call with its own workspace.
//
// Results depend on the shapes and the routing alone, as long as a process lends calls of one token no more than kMostHeldWorkspaces
// (HeldMoe) and kMostTokenWorkspaces (TokenMoe) different workspaces: those beyond get the kernels of several launches, which add in
// another order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "billfish/moe.h"
#include "billfish/status.h"
#include "billfish/tensor.h"
#include "cuda/device.h"
#include "cuda/grouped_decode.h"
#include "cuda/held_moe.h"
#include "cuda/jit.h"
#include "cuda/linear_tile.h"
#include "cuda/slot_sort.h"
#include "cuda/token_moe.h"

namespace billfish::cuda {

struct MoePipelineOptions {
  Activation activation;
  DType activation_dtype = DType::kBF16;  ///< of x and h: kBF16 or kF16
  int64_t first_expert = 0;               ///< id of the first expert held here; slots of experts held elsewhere add nothing
};

struct MoeCall {
  const void* x = nullptr;         ///< [T][x_stride]
  const int32_t* ids = nullptr;    ///< [T][top_k]; -1 and other ids without an expert here add nothing
  const float* weights = nullptr;  ///< [T][top_k]
  void* y = nullptr;               ///< [T][y_stride]; overlaps nothing but the addend
  const void* addend = nullptr;    ///< like y, or null: a residual or a shared expert's output; may be y itself
  int64_t T = 0, top_k = 0;
  int64_t x_stride = 0, y_stride = 0;  ///< elements
  OutType y_type = OutType::kBF16;     ///< of y and addend
};

class MoePipeline {  // NOLINT(bugprone-reserved-identifier): loops of the copy constructor that the compiler writes
 public:
  /// gate_up [E,2I,H] in a gate-up row order ([E,I,H] plain for an activation without gate), down [E,H,I] plain; both borrowed.
  /// Precondition: activation.Validate() is ok.
  static Result<MoePipeline> Create(const GpuDevice& device, const TileView& gate_up, const TileView& down,
                                    const MoePipelineOptions& options);

  /// workspace: device memory, 256-byte aligned, WorkspaceBytes(T, top_k) of it; contents do not matter.
  Status Run(const MoeCall& call, std::span<std::byte> workspace, CUstream stream) const;
  size_t WorkspaceBytes(int64_t T, int64_t top_k) const;

  /// One token from the residual stream on: its norm, routing and experts in one launch, where the device can do that. `workspace` as for
  /// the call that it stands for, call.first_expert is not read. Precondition of Run: Takes(call, workspace).
  bool Takes(const HeldNormedCall& call, std::span<std::byte> workspace) const;
  Status Run(const HeldNormedCall& call, std::span<std::byte> workspace, CUstream stream) const;

  /// Whether a call of this size goes to the decode kernels.
  bool Decodes(int64_t slots) const;

 private:
  struct Parts;
  Parts Carve(int64_t T, int64_t top_k, std::byte* base) const;
  bool OneLaunch(int64_t T, int64_t top_k) const;
  Status OneToken(const MoeCall& call, const Parts& parts, TokenProgress* progress, CUstream stream) const;
  Status FewSlots(const MoeCall& call, const Parts& parts, CUstream stream) const;
  Status Sort(const MoeCall& call, const Parts& parts, int tile_rows, int cost_rows, CUstream stream) const;
  Status Experts(const MoeCall& call, const Parts& parts, CUstream stream) const;
  Status Combine(const MoeCall& call, const Parts& parts, CUstream stream) const;
  bool Direct(int64_t T, int64_t top_k) const;
  int64_t Arrivals() const;             ///< counters of down: one for each 16 columns
  int64_t HStride() const;              ///< elements from row to row of h: 16 bytes divide it
  DType RowsType(int64_t slots) const;  ///< of what down writes: kF32 or kBF16

  const GpuDevice* device_ = nullptr;
  int64_t E_ = 0, H_ = 0, I_ = 0, first_expert_ = 0, expert_bytes_ = 0;
  DType dtype_ = DType::kBF16;
  SlotSort sort_;
  LoadedKernel combine_[2][3];  ///< by type of out (fp32, bf16), then of y (fp32, bf16, fp16)
  std::optional<HeldMoe> held_;
  std::optional<TokenMoe> token_;
  std::shared_ptr<const GroupedDecode> decode_gate_up_, decode_down_;
  std::shared_ptr<const GroupedTile> tile_gate_up_, tile_down_;
};

/// What `billfish kernels` lists: combine.
void AppendMoeSpecs(Arch arch, std::vector<KernelSpec>& specs);

}  // namespace billfish::cuda
