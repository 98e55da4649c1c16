// Produces the bytes of one step of a plan's item: one expert of one module.
#pragma once

#include <string>
#include <vector>

#include "billfish/checkpoint.h"
#include "checkpoint/writer/plan.h"

namespace billfish::checkpoint {

/// One per thread: keeps the module it decoded last, since the experts of a stack follow each other.
class ItemEncoder {
 public:
  struct Settings {
    QuantLayout layout = QuantLayout::kCompressedTensors;
    bool requantize = false;
    int quantize_threads = 1;  ///< inside one matrix
  };

  ItemEncoder(const Checkpoint& source, const Settings& settings) : source_(source), settings_(settings) {}

  /// Bytes of expert e for each tensor of the item. Not for Action::kCopy. Errors name the module.
  Result<std::vector<Bytes>> Encode(const Item& item, int64_t e);

 private:
  Result<std::vector<Bytes>> Quantize(const Item& item, int64_t e);
  Result<std::vector<Bytes>> Rewrite(const Item& item, int64_t e);
  Result<std::vector<Bytes>> Dequantize(const Item& item, int64_t e);
  Result<std::vector<Bytes>> QuantizeValues(const Item& item, const Bytes& values, DType dtype) const;
  /// Plain numbers of expert e as [N, K], aligned.
  Result<Bytes> PlainValues(const Item& item, int64_t e, DType* dtype) const;
  Result<PackedWeight> Expert(const Item& item, int64_t e);

  const Checkpoint& source_;
  Settings settings_;
  std::string loaded_name_;
  PackedWeight loaded_;
};

}  // namespace billfish::checkpoint
