// An encoding turns one weight in plain form into the tensors of one layout. One file per layout, one row in the table.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billfish/quantize.h"
#include "billfish/weight.h"
#include "checkpoint/writer/safetensors_layout.h"

namespace billfish::checkpoint {

/// A matrix or a stack of experts to be written; every expert is encoded by itself.
struct EncodedShape {
  std::string module;
  QuantScheme scheme;
  int64_t E = 1, N = 0, K = 0;
};

/// What was done to which modules, for config.json.
struct WrittenModules {
  QuantScheme scheme;
  bool head = false;                       ///< the output head is quantised
  std::vector<std::string> quantized;      ///< module names, sorted
  std::vector<std::string> plain_linears;  ///< other rank-2 modules except embeddings, sorted
};

struct Encoding {
  QuantLayout layout;
  /// kInvalidArgument where the layout has no place for the scheme.
  Status (*check_scheme)(const QuantScheme& scheme);
  /// kInvalidArgument where this shape does not fit; names the module.
  Status (*check_shape)(const EncodedShape& shape);
  /// The tensors of a module. Each is a whole number of equal parts, one per expert.
  std::vector<OutputTensor> (*tensors)(const EncodedShape& shape);
  /// Bytes of one expert (E = 1), in the order of tensors(). kUnsupported where the numbers have no exact place.
  Result<std::vector<Bytes>> (*encode)(const PackedWeight& weight);
  /// quantization_config of config.json.
  nlohmann::ordered_json (*config)(const WrittenModules& modules);
};

extern const Encoding kCompressedTensorsEncoding;
extern const Encoding kGptqEncoding;
extern const Encoding kGptOssEncoding;

const Encoding& EncodingOf(QuantLayout layout);

/// The scheme that this layout stores when `scheme` is asked for: GPTQ's scales are fp16.
QuantScheme StoredScheme(QuantLayout layout, QuantScheme scheme);

/// kInvalidArgument: the asked scheme, the layout, and what the layout does hold.
Status SchemeError(QuantLayout layout, const QuantScheme& scheme);

/// kInvalidArgument unless K is a multiple of `multiple`; names the module and the way out.
Status CheckColumns(const EncodedShape& shape, int64_t multiple);

}  // namespace billfish::checkpoint
