// Which matrices of a model may be quantised, by name.
#pragma once

#include <cstdint>
#include <string_view>

#include "billfish/quantize.h"

namespace billfish::checkpoint {

enum class ModuleKind : uint8_t {
  kExpert,  ///< of a routed expert
  kLinear,  ///< attention, dense MLP, shared expert
  kHead,    ///< vocabulary projection
  kNever,   ///< embeddings, norms, routers and whatever the table does not know
};

ModuleKind KindOfModule(std::string_view name);

/// Whether `modules` takes this kind in. `tied_head`: the head is the embedding.
bool Selects(QuantModules modules, ModuleKind kind, bool tied_head);

/// Embedding tables: never an nn.Linear, so a list of linears to leave out need not name them.
bool IsEmbedding(std::string_view name);

}  // namespace billfish::checkpoint
