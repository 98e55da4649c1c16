// What `bench model` runs, on whatever device: a loaded model, room for its sequence, and the tokens that it is fed.
#pragma once

#include <cstdint>
#include <vector>

#include "billfish/model.h"
#include "cases.h"
#include "model_cost.h"

namespace billfish::bench {

struct ModelRun {
  Model model;
  KvCache cache;             ///< for the longer of both sequences
  std::vector<int32_t> ids;  ///< as many
  Heaviest heaviest;
  Row row;  ///< without op, M and times
};

/// Errors: those of CheckModelCase, Model::Load, Model::Random and Model::NewCache, kInvalidArgument where pp or tg is longer than the
/// model's sequences.
Result<ModelRun> LoadModelRun(const ModelCase& model_case, const RunOptions& options);

/// Fills the split of a decode row of tg tokens, timed half-way. The cache must hold tg tokens; afterwards it holds half of them.
Status SplitStep(ModelRun& run, int64_t tg, double budget_s, ExecContext& ctx);

}  // namespace billfish::bench
