// Checkpoint: a Hugging Face folder or a single safetensors file, memory-mapped. Lists before it loads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/status.h"
#include "billfish/tensor.h"
#include "billfish/weight.h"

namespace billfish {

struct TensorInfo {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  size_t bytes = 0;
  int shard = 0;           ///< index into Checkpoint::shards()
  size_t file_offset = 0;  ///< of the first byte, from the start of the shard
};

/// One weight of the model as the file stores it: "model.layers.0.self_attn.q_proj" with all its companion tensors.
struct ModuleInfo {
  std::string name;    ///< module path without ".weight"
  std::string format;  ///< "gptq-v1", "awq-gemm", "compressed-tensors pack-quantized", "gpt-oss mxfp4", "plain", ...
  QuantScheme scheme;
  int64_t E = 1, N = 0, K = 0;
  bool act_order = false;
  size_t bytes = 0;                  ///< of all its tensors in the file
  std::vector<std::string> tensors;  ///< names of its tensors in the file
};

class Checkpoint {
 public:
  Checkpoint();
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  /// A folder (config.json, model.safetensors or shards with an index) or one .safetensors file. Reads headers only.
  /// Errors: kNotFound, kIo, kCorruptFile (any rule of the safetensors format; an index that names a missing tensor or leaves the
  /// folder), kUnsupported (a quantisation method that billfish cannot read; says which it can).
  static Result<Checkpoint> Open(const std::filesystem::path& path);

  const std::filesystem::path& path() const;
  std::span<const std::filesystem::path> shards() const;
  std::span<const TensorInfo> tensors() const;            ///< sorted by name
  const TensorInfo* Find(std::string_view tensor) const;  ///< nullptr if absent
  /// A view into the mapped file, valid while the Checkpoint or the Bytes lives. May be unaligned.
  Result<Bytes> Read(std::string_view tensor) const;
  /// The tensor as fp32 values, for small ones (norms, biases). Accepts f32, f16, bf16, f64.
  Result<std::vector<float>> ReadF32(std::string_view tensor) const;
  /// Text of config.json; empty for a single file without one.
  const std::string& config_json() const;

  /// Every module that holds a matrix (rank 2 or 3 weights, quantised or not), sorted by name.
  /// Errors: kCorruptFile where configuration and tensors disagree; names both.
  Result<std::vector<ModuleInfo>> Modules() const;
  /// kNotFound if no tensor belongs to it.
  Result<ModuleInfo> Describe(std::string_view module) const;
  /// The weight in plain form, numbers bit for bit those of the file.
  Result<PackedWeight> LoadWeight(std::string_view module) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace billfish
