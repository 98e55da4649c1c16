// Carries out a plan: shard after shard, within a shard on all threads, each tensor straight to its place in the file.
#pragma once

#include <functional>

#include "billfish/checkpoint.h"
#include "billfish/quantize.h"
#include "checkpoint/writer/item_encoder.h"
#include "checkpoint/writer/output_folder.h"
#include "checkpoint/writer/plan.h"

namespace billfish::checkpoint {

struct WriteSettings {
  ItemEncoder::Settings encoder;
  int threads = 1;
  std::function<bool(const QuantizeProgress&)> progress;
};

/// Writes the shards that are not finished. Errors: those of encoding and writing; kCancelled.
Status WriteShards(const Checkpoint& source, const Plan& plan, const WriteSettings& settings, OutputFolder& folder);

}  // namespace billfish::checkpoint
