// The plan of a written checkpoint: every tensor of every shard with its place, made from headers alone before any number is touched.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "billfish/checkpoint.h"
#include "billfish/quantize.h"
#include "checkpoint/writer/encoding.h"
#include "checkpoint/writer/safetensors_layout.h"

namespace billfish::checkpoint {

enum class Action : uint8_t {
  kCopy,        ///< one tensor, byte for byte
  kQuantize,    ///< from plain or decoded numbers
  kRewrite,     ///< the same numbers in another layout
  kDequantize,  ///< to plain numbers
};

struct Item {
  Action action = Action::kCopy;
  std::string source;        ///< tensor (kCopy) or module
  std::string plain_tensor;  ///< where kQuantize reads plain numbers; empty if they are decoded
  bool transposed = false;   ///< plain numbers are [E, K, N]
  EncodedShape shape;        ///< of the module as it is written
  std::vector<OutputTensor> tensors;
  std::vector<uint64_t> offsets;    ///< in the shard's file
  std::vector<std::string> inputs;  ///< tensors that are read, for ordering and for giving pages back

  uint64_t bytes() const;
  int64_t steps() const { return action == Action::kCopy ? 1 : shape.E; }
};

struct OutputShard {
  std::string name;
  size_t first = 0, last = 0;  ///< items [first, last)
  SafetensorsLayout layout;
};

struct Plan {
  std::vector<Item> items;
  std::vector<OutputShard> shards;
  std::string config;  ///< text of config.json
  std::string index;   ///< text of model.safetensors.index.json; empty for a single shard

  uint64_t bytes() const;
};

/// Headers only. `options.scheme` is the stored scheme.
Result<Plan> PlanQuantize(const Checkpoint& source, const QuantizeOptions& options);
Result<Plan> PlanDequantize(const Checkpoint& source, DType dtype, int64_t max_shard_bytes);

// --- shared by both ----------------------------------------------------------------------------------------------------------------

/// Adds a copy of every tensor that no item reads, sorts items as the source stores them, cuts them into shards and writes the index.
Status FinishPlan(const Checkpoint& source, int64_t max_shard_bytes, Plan& plan);

/// One plain tensor in place of a quantised module: [N, K], [E, N, K], or [E, K, N] for gpt-oss blocks.
Item DequantizeItem(const ModuleInfo& module, DType dtype);

/// config.json of the source without any trace of quantisation, an empty object if there is none.
Result<nlohmann::ordered_json> PlainConfig(const Checkpoint& source);

}  // namespace billfish::checkpoint
