#include "cuda/model_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/rounding.h"
#include "core/status_macros.h"

namespace billfish::cuda {
namespace {

constexpr int64_t kMostHeadDim = 256;
// Blocks that a decode step of attention wants, in clusters of so many: nearly one for each SM of a large GPU, whose parts large clusters
// do not fill. A number of its own, so that results do not depend on the GPU.
constexpr int64_t DecodeBlocks(int64_t cluster) { return cluster <= 2 ? 128 : cluster <= 4 ? 112 : 96; }

KernelSpec Plain(const char* name) { return {.file = fmt::format("{}.cu", name), .function = name}; }

KernelSpec Attention(const char* name, int64_t head_dim, int shared_bytes) {
  KernelSpec spec = Plain(name);
  spec.defines = {{"BF_HEAD_DIM", std::to_string(head_dim)}};
  spec.shared_bytes = static_cast<uint32_t>(shared_bytes);
  spec.hot = head_dim <= 128;  // a longer head's sums exceed the registers
  return spec;
}

// Two chunks of a warp, where there is room for them.
int DecodeStages(int head_dim, Arch arch) { return DecodeSharedBytes(head_dim, 2) + 2048 <= arch.SharedBytesOfSm() ? 2 : 1; }

KernelSpec Decode(int head_dim, Arch arch) {
  const int stages = DecodeStages(head_dim, arch);
  KernelSpec spec = Attention("attention_decode", head_dim, DecodeSharedBytes(head_dim, stages));
  spec.defines.emplace_back("BF_STAGES", std::to_string(stages));
  return spec;
}
KernelSpec Prefill(int head_dim) { return Attention("attention_prefill", head_dim, AttentionSharedBytes(head_dim)); }

uint32_t Blocks(int64_t count, int64_t per_block) { return static_cast<uint32_t>(DivideUp(count, per_block)); }

template <class Args>
Status LaunchOne(const LoadedKernel& kernel, LaunchShape shape, const Args& args, CUstream stream) {
  // Nothing to do is no launch: a grid of zero blocks is an error to the driver.
  if (shape.grid_x == 0 || shape.grid_y == 0) return OkStatus();
  shape.dependent = true;
  std::array<void*, 1> parameters = {const_cast<Args*>(&args)};
  return Launch(kernel, shape, stream, parameters);
}

}  // namespace

Result<ModelOps> ModelOps::Create(const GpuDevice& device, int64_t head_dim) {
  if (head_dim < 16 || head_dim > kMostHeadDim || head_dim % 16 != 0) {
    return Status(
        ErrorCode::kUnsupported,
        fmt::format("the model's heads have {} values; attention on a GPU takes multiples of 16 up to {}", head_dim, kMostHeadDim));
  }
  ModelOps ops;
  ops.head_dim_ = static_cast<int>(head_dim);
  ops.has_clusters_ = device.arch().major >= 9;
  ops.decode_shared_bytes_ = static_cast<uint32_t>(DecodeSharedBytes(ops.head_dim_, DecodeStages(ops.head_dim_, device.arch())));
  const std::pair<LoadedKernel*, KernelSpec> kernels[] = {{&ops.embedding_, Plain("embedding")},
                                                          {&ops.rms_norm_, Plain("rms_norm")},
                                                          {&ops.rope_, Plain("rope")},
                                                          {&ops.attention_decode_, Decode(ops.head_dim_, device.arch())},
                                                          {&ops.attention_prefill_, Prefill(ops.head_dim_)},
                                                          {&ops.swiglu_, Plain("vector_swiglu")},
                                                          {&ops.argmax_, Plain("argmax")}};
  for (const auto& [kernel, spec] : kernels) {
    BILLFISH_ASSIGN_OR_RETURN(*kernel, LoadKernel(spec, device));
  }
  return ops;
}

Status ModelOps::Embedding(const EmbeddingArgs& args, CUstream stream) const {
  return LaunchOne(embedding_, {.grid_x = Blocks(args.H, 1024), .grid_y = static_cast<uint32_t>(args.T), .threads = 256}, args, stream);
}

Status ModelOps::RmsNorm(const RmsNormArgs& args, CUstream stream) const {
  // A thread reads four values at a time where rows allow it; the count decides the order of the sum, and only the row's length decides it.
  const int64_t items = args.H % 4 == 0 ? args.H / 4 : args.H;
  const auto threads = static_cast<uint32_t>(std::clamp<int64_t>((items + 31) / 32 * 32, 32, 1024));
  return LaunchOne(rms_norm_, {.grid_x = static_cast<uint32_t>(args.T), .threads = threads}, args, stream);
}

Status ModelOps::Rope(const RopeArgs& args, CUstream stream) const {
  constexpr int64_t kWarps = 8;
  const LaunchShape shape{
      .grid_x = Blocks(args.heads + 2 * args.kv_heads, kWarps), .grid_y = static_cast<uint32_t>(args.T), .threads = 32 * kWarps};
  return LaunchOne(rope_, shape, args, stream);
}

Status ModelOps::AttentionDecode(const AttentionDecodeArgs& args, CUstream stream) const {
  if (args.T == 0) return OkStatus();
  // Many rows fill the GPU with fewer blocks each, and few of long sequences with several clusters each.
  const int64_t tiles = DecodeTiles(args.heads, args.kv_heads) * args.T;
  int64_t blocks = has_clusters_ ? kDecodeCluster : 1;
  while (blocks > 1 && blocks * tiles > DecodeBlocks(blocks)) blocks /= 2;
  AttentionDecodeArgs shared = args;
  shared.groups = static_cast<int32_t>(std::clamp<int64_t>(DecodeBlocks(blocks) / (blocks * tiles), 1, kDecodeSplits / blocks));
  shared.kv_rows = args.heads / args.kv_heads;
  const LaunchShape shape{.grid_x = static_cast<uint32_t>(blocks),
                          .grid_y = static_cast<uint32_t>(tiles / args.T),
                          .grid_z = static_cast<uint32_t>(shared.groups * args.T),
                          .threads = 32 * kDecodeWarps,
                          .shared_bytes = decode_shared_bytes_,
                          .cluster_x = static_cast<uint32_t>(blocks)};
  return LaunchOne(attention_decode_, shape, shared, stream);
}

Status ModelOps::AttentionPrefill(const AttentionArgs& args, CUstream stream) const {
  const int warps = PrefillWarps(head_dim_);
  const LaunchShape shape{.grid_x = Blocks(int64_t{args.T} * (args.heads / args.kv_heads), int64_t{warps} * kAttentionRows),
                          .grid_y = static_cast<uint32_t>(args.kv_heads),
                          .threads = static_cast<uint32_t>(32 * warps),
                          .shared_bytes = static_cast<uint32_t>(AttentionSharedBytes(head_dim_))};
  return LaunchOne(attention_prefill_, shape, args, stream);
}

Status ModelOps::Swiglu(const SwigluArgs& args, CUstream stream) const {
  return LaunchOne(swiglu_, {.grid_x = Blocks(args.I, 512), .grid_y = static_cast<uint32_t>(args.T), .threads = 256}, args, stream);
}

Status ModelOps::Argmax(const ArgmaxArgs& args, CUstream stream) const {
  return LaunchOne(argmax_, {.grid_x = kArgmaxBlocks, .grid_y = static_cast<uint32_t>(args.rows), .threads = 256}, args, stream);
}

Result<LinearPlain> LinearPlain::Create(const GpuDevice& device) {
  LinearPlain linear;
  BILLFISH_ASSIGN_OR_RETURN(linear.kernel_, LoadKernel(Plain("linear_plain"), device));
  return linear;
}

Status LinearPlain::Run(const LinearPlainArgs& args, CUstream stream) const {
  constexpr int64_t kWarps = 8, kRows = 4, kFewOutputs = 1024;
  LinearPlainArgs shared = args;
  shared.shares = args.N <= kFewOutputs ? kWarps : 1;
  const LaunchShape shape{.grid_x = Blocks(args.N, kWarps / shared.shares), .grid_y = Blocks(args.M, kRows), .threads = 32 * kWarps};
  return LaunchOne(kernel_, shape, shared, stream);
}

void AppendModelOpsSpecs(Arch arch, std::vector<KernelSpec>& specs) {
  for (const char* name : {"embedding", "rms_norm", "rope", "vector_swiglu", "linear_plain", "argmax"}) specs.push_back(Plain(name));
  for (const int head_dim : {64, 96, 128}) {
    specs.push_back(Decode(head_dim, arch));
    specs.push_back(Prefill(head_dim));
  }
}

}  // namespace billfish::cuda
