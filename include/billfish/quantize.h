// QuantizeCheckpoint: a Hugging Face folder in, a quantised folder out; and the way back.
//
// Streams: one matrix per thread is in memory at a time, whatever the size of the model. DST appears complete or not at all: everything is
// written to DST.partial beside it, synchronised to the disk and renamed at the end. A run that was interrupted (killed, disk full,
// cancelled) continues after its last finished shard when it is started again with the same source and options, and starts afresh when
// either has changed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/scheme.h"
#include "billfish/status.h"
#include "billfish/tensor.h"

namespace billfish {

/// Which matrices are quantised. Embeddings, norms and routers never are.
enum class QuantModules : uint8_t {
  kExperts,  ///< routed experts of MoE layers
  kLinears,  ///< and attention, dense MLPs and shared experts
  kAll,      ///< and the output head, unless it is tied to the embedding
};

/// How the numbers lie in the files and what config.json calls it.
enum class QuantLayout : uint8_t {
  kCompressedTensors,  ///< int4 (pack-quantized), nvfp4, mxfp4 (-pack-quantized), fp8 (float-quantized)
  kGptq,               ///< int4; symmetric as checkpoint_format "gptq", asymmetric as "gptq_v2"; scales become fp16
  kGptOss,             ///< mxfp4 experts of gpt-oss models
};

/// "compressed-tensors", "gptq", "gpt-oss".
std::string_view QuantLayoutName(QuantLayout layout);
/// kInvalidArgument for another name; lists these.
Result<QuantLayout> QuantLayoutByName(std::string_view name);
/// "experts", "linears", "all".
std::string_view QuantModulesName(QuantModules modules);
Result<QuantModules> QuantModulesByName(std::string_view name);

struct QuantizeProgress {
  int64_t tensors_done = 0;  ///< matrices of a stack of experts count one by one
  int64_t tensors_total = 0;
  uint64_t bytes_done = 0;  ///< of the result
  uint64_t bytes_total = 0;
  uint64_t bytes_resumed = 0;  ///< part of bytes_done that an earlier run had written
  std::string_view tensor;     ///< the one just written; valid during the call
};

struct QuantizeOptions {
  QuantScheme scheme = schemes::kMxfp4;
  QuantModules modules = QuantModules::kLinears;
  QuantLayout layout = QuantLayout::kCompressedTensors;
  /// Modules to leave as they are: exact names, or "re:" and a regular expression that is anchored at the start.
  std::vector<std::string> ignore;
  /// A quantised source: modules whose numbers already are those of `scheme` are rewritten without loss; others lose accuracy a second
  /// time and are an error unless this is set. Quantised modules that are not selected become bf16.
  bool requantize = false;
  int64_t max_shard_bytes = 4'000'000'000;
  int threads = 0;         ///< 0 = DefaultThreads(). The files do not depend on it.
  bool overwrite = false;  ///< replace an existing DST, at the very end and in one step
  /// Called after every tensor, from one thread at a time. False stops with kCancelled; what is finished is kept for the next run.
  std::function<bool(const QuantizeProgress&)> progress;
};

/// Writes dst: shards, index, config.json with a quantization_config that says what was done, and the tokenizer's files.
/// Errors: kInvalidArgument (scheme and layout that do not go together: names what does; dst exists; nothing to quantise; a group that
/// does not divide a matrix), kUnsupported (a quantised source, see requantize), kIo (the system's reason; DST is untouched), kCancelled,
/// kOutOfMemory and all of Checkpoint::Open.
Status QuantizeCheckpoint(const std::filesystem::path& src, const std::filesystem::path& dst, const QuantizeOptions& options);

struct DequantizeOptions {
  int64_t max_shard_bytes = 4'000'000'000;
  int threads = 0;
  bool overwrite = false;
  std::function<bool(const QuantizeProgress&)> progress;
};

/// Writes every quantised module of src as plain numbers (kBF16, kF16 or kF32), every other tensor as it is, and config.json without
/// quantization_config. gpt-oss experts become [E, K, N], as that model stores them.
/// Errors: as above; kInvalidArgument where src holds nothing quantised or a value exceeds the range of fp16.
Status DequantizeCheckpoint(const std::filesystem::path& src, const std::filesystem::path& dst, DType dtype,
                            const DequantizeOptions& options = {});

}  // namespace billfish
