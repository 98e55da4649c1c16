// MoeLayer: routing, gate|up, activation, down and combine of a Mixture-of-Experts block.
//
//   y[t] = sum over j of weights[t,j] * ( W_down[e] . act(W_gate[e] . x[t] + b, W_up[e] . x[t] + b) + b_down[e] ),   e = ids[t,j]
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "billfish/linear.h"

namespace billfish {

namespace moe {
struct GpuAccess;
}

/// h = act(g, u). Every field that the kind reads must be given; there are no silent defaults.
struct Activation {
  enum class Kind : uint8_t {
    kSwiglu,         ///< silu(g) * u
    kSwigluClamped,  ///< silu(min(g, limit)) * clamp(u, -limit, limit)                          DeepSeek-V4
    kSwigluOai,      ///< g' = min(g, limit), u' = clamp(u, -limit, limit): g' * sigmoid(alpha * g') * (u' + beta)   gpt-oss
    kGegluTanh,      ///< gelu_tanh(g) * u
    kSilu,           ///< silu(g), no up projection
    kRelu2,          ///< max(g, 0)^2, no up projection
  };
  Kind kind;
  float limit = 0;  ///< kSwigluClamped, kSwigluOai: > 0
  float alpha = 0;  ///< kSwigluOai: > 0
  float beta = 0;   ///< kSwigluOai

  bool gated() const { return kind != Kind::kSilu && kind != Kind::kRelu2; }
  /// kInvalidArgument with the missing or meaningless field, else ok.
  Status Validate() const;
};

/// How router logits become expert ids and weights.
struct RouterRule {
  enum class Score : uint8_t {
    kSoftmax,       ///< softmax over all experts, then top-k (Qwen, Mixtral)
    kTopKSoftmax,   ///< top-k of the logits, then softmax over those k (gpt-oss)
    kSigmoid,       ///< DeepSeek-V3
    kSqrtSoftplus,  ///< sqrt(log(1 + exp(logit))), DeepSeek-V4
  };
  Score score;
  int64_t E = 0;
  int64_t top_k = 0;
  bool renormalize = false;         ///< divide the k weights by their sum (+ 1e-20)
  float routed_scaling = 1.0f;      ///< multiplies the final weights once
  std::vector<float> correction;    ///< [E] or empty: added to the scores for the choice only
  int64_t n_group = 1;              ///< experts come in n_group equal groups ...
  int64_t topk_group = 1;           ///< ... of which the topk_group with the largest sum of their two best (corrected) scores stay
  std::vector<int32_t> hash_table;  ///< [vocab, top_k] or empty: ids are hash_table[token id], weights still come from the scores
  Status Validate() const;
};

/// ids [T,top_k] i32 (-1 = skip this slot), weights [T,top_k] f32.
struct Routing {
  TensorView ids;
  TensorView weights;
};

/// logits [T,E] f32 -> out, on the CPU. token_ids [T] is read only for hash routing. Ties go to the smaller expert id.
/// Slots of one token are ordered by falling (corrected) score.
Status RouteTopK(ConstTensorView logits, const RouterRule& rule, std::span<const int32_t> token_ids, Routing out, ExecContext& ctx);
/// Workspace bytes that RouteTopK needs for T tokens.
size_t RouteWorkspaceBytes(int64_t T, const RouterRule& rule);

/// RouteTopK as an object that keeps what its device needs: the tables of the rule lie there already when a call begins.
class Router {
 public:
  Router();
  ~Router();
  Router(Router&&) noexcept;
  Router& operator=(Router&&) noexcept;

  /// Errors: RouterRule::Validate; on a GPU those of the device, and kUnsupported for more experts or groups than its kernel holds.
  static Result<Router> Create(RouterRule rule, Device device = {});

  /// logits [T,E] f32, rows may be strided; token_ids [T] i32, read for hash routing only, else a view without data. All on the device
  /// of the router. On a GPU the call is ordered on ctx.stream, and a token id outside the table gives ids of -1.
  /// Errors: kShapeMismatch, kInvalidArgument, kOutOfMemory (workspace).
  Status Forward(ConstTensorView logits, ConstTensorView token_ids, Routing out, ExecContext& ctx) const;
  size_t WorkspaceBytes(int64_t T) const;
  const RouterRule& rule() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

enum class GateUpOrder : uint8_t {
  kConcatenated,  ///< rows 0..I-1 gate, I..2I-1 up
  kInterleaved,   ///< even rows gate, odd rows up (gpt-oss)
};

struct MoeOptions {
  Activation activation;
  GateUpOrder order = GateUpOrder::kConcatenated;
  DType activation_dtype = DType::kBF16;  ///< of x: kBF16 or kF32, on a GPU kBF16 or kF16; the hidden h is kept in the same dtype
  Mode mode = Mode::kExact;
  Device device = {};                 ///< where the weights lie and Forward runs
  std::string kernel = {};            ///< insist on one kernel for both matrices; empty = choose
  ConstTensorView gate_up_bias = {};  ///< optional [E,2I] in `order`
  ConstTensorView down_bias = {};     ///< optional [E,H]
  PanelEntry panels = {};             ///< optional: where the packed weights are kept between runs, as two entries
};

class MoeLayer {
 public:
  MoeLayer();
  ~MoeLayer();
  MoeLayer(MoeLayer&&) noexcept;
  MoeLayer& operator=(MoeLayer&&) noexcept;

  /// gate_up [E,2I,H] ([E,I,H] for an activation without gate), down [E,H,I].
  static Result<MoeLayer> Create(const PackedWeight& gate_up, const PackedWeight& down, const MoeOptions& options);
  /// From what an earlier Create kept in options.panels; see Linear::Map.
  static Result<MoeLayer> Map(const MoeOptions& options);

  /// x [T,H] of activation_dtype, y [T,H] f32 or bf16 (on a GPU f32 or activation_dtype); y is overwritten and overlaps no other operand.
  /// On a GPU every operand and the workspace are its memory, the call is ordered on ctx.stream, and ids outside 0..E-1 add nothing.
  /// Deterministic: slots are summed in slot order in fp32. An expert that no token chose is never read; a slot with id -1 adds nothing.
  /// Other ids outside 0..E-1: kInvalidArgument.
  Status Forward(ConstTensorView x, const Routing& routing, TensorView y, ExecContext& ctx) const;

  size_t WorkspaceBytes(int64_t T, int64_t top_k) const;
  int64_t E() const;
  int64_t H() const;
  int64_t I() const;
  MatrixInfo gate_up() const;
  MatrixInfo down() const;

 private:
  friend struct moe::GpuAccess;
  static Result<MoeLayer> FromMatrices(Result<GroupedLinear> gate_up, Result<GroupedLinear> down, const MoeOptions& options);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace billfish
