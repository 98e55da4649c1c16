#include "model_run.h"

#include <fmt/format.h>

#include <algorithm>

namespace billfish::bench {

Result<ModelRun> LoadModelRun(const std::filesystem::path& path, int64_t pp, int64_t tg, const RunOptions& options) {
  ModelOptions model_options;
  model_options.activation = options.activation;
  model_options.mode = options.mode;
  model_options.kernel = options.kernel;
  model_options.device = options.device;
  Result<Model> model = Model::Load(path, model_options);
  if (!model) return model.error();
  const int64_t longest = std::max(pp, tg);
  if (longest < 1) {
    return Status(ErrorCode::kInvalidArgument, "both --pp and --tg are 0, so there is nothing to time; give at least one of them");
  }
  if (longest > model->max_context()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} tokens were asked for, but the model's longest sequence is {}; give smaller --pp and --tg", longest,
                              model->max_context()));
  }
  Result<KvCache> cache = model->NewCache(longest);
  if (!cache) return cache.error();
  ModelRun run{std::move(model).value(), std::move(cache).value(), {}, {}, {}};
  const ModelConfig& config = run.model.config();
  run.ids.resize(static_cast<size_t>(longest));
  for (size_t i = 0; i < run.ids.size(); ++i) run.ids[i] = static_cast<int32_t>((i * 7919 + 13) % static_cast<size_t>(config.vocab));
  run.heaviest = FindHeaviest(run.model);
  run.row.name = path.filename().empty() ? path.parent_path().filename().string() : path.filename().string();
  run.row.kernel = run.heaviest.kernel;
  run.row.scheme = run.heaviest.scheme;
  run.row.mode = options.mode == Mode::kFast ? "fast" : "exact";
  run.row.activation = DTypeName(options.activation);
  run.row.E = std::max<int64_t>(1, config.experts);
  run.row.top_k = std::max<int64_t>(1, config.top_k);
  run.row.threads = options.threads;
  return run;
}

}  // namespace billfish::bench
