// What `bench model` runs, on whatever device: a loaded model, room for its sequences, and the tokens that they are fed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "billfish/model.h"
#include "cases.h"
#include "model_cost.h"

namespace billfish::bench {

struct ModelRun {
  Model model;
  KvCache cache;             ///< for the largest batch, sequences as long as the longer of pp and tg
  std::vector<int32_t> ids;  ///< as many as all of it holds
  Heaviest heaviest;
  Row row;  ///< without op, M and times

  /// What the first `batch` sequences are fed in a step.
  std::span<const int32_t> StepIds(int64_t step, int64_t batch) const {
    return std::span(ids).subspan(static_cast<size_t>(step * batch), static_cast<size_t>(batch));
  }
  /// Cuts every sequence down to at most `length` tokens.
  Status Truncate(int64_t length);
};

/// Errors: those of CheckModelCase, Model::Load, Model::Random and Model::NewCache, kInvalidArgument where pp or tg is longer than the
/// model's sequences.
Result<ModelRun> LoadModelRun(const ModelCase& model_case, const RunOptions& options);

/// Fills the split of a decode row, timed half-way: the first run.row.M sequences must hold tg tokens, and hold half of them afterwards.
Status SplitStep(ModelRun& run, int64_t tg, double budget_s, ExecContext& ctx);

}  // namespace billfish::bench
