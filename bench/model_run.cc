#include "model_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "model_shapes.h"

namespace billfish::bench {

namespace {

/// What a case with a shape makes up.
Result<RandomModel> SpecOf(const ModelCase& model_case) {
  RandomModel spec;
  Result<std::string> config = ShapeConfig(model_case.shape, model_case.layers);
  if (!config) return config.error();
  spec.config_json = std::move(config).value();
  const std::pair<const std::string*, QuantScheme*> schemes[] = {
      {&model_case.scheme, &spec.mlp}, {&model_case.attention, &spec.attention}, {&model_case.lm_head, &spec.lm_head}};
  for (const auto& [name, scheme] : schemes) {
    const Result<QuantScheme> known = SchemeByName(*name);
    if (!known) return known.error();
    *scheme = *known;
  }
  return spec;
}

Result<Model> MakeModel(const ModelCase& model_case, const ModelOptions& options) {
  if (model_case.shape.empty()) return Model::Load(model_case.folder, options);
  const Result<RandomModel> spec = SpecOf(model_case);
  if (!spec) return spec.error();
  return Model::Random(*spec, options);
}

std::string NameOf(const ModelCase& model_case) {
  const std::filesystem::path& folder = model_case.folder;
  if (model_case.shape.empty()) return folder.filename().empty() ? folder.parent_path().filename().string() : folder.filename().string();
  return model_case.layers == 0 ? model_case.shape : fmt::format("{} L{}", model_case.shape, model_case.layers);
}

}  // namespace

Status CheckModelCase(const ModelCase& model_case) {
  if (std::max(model_case.pp, model_case.tg) < 1)
    return {ErrorCode::kInvalidArgument, "both --pp and --tg are 0, so there is nothing to time; give at least one of them"};
  if (model_case.tg < 1 && model_case.batches != std::vector<int64_t>{1})
    return {ErrorCode::kInvalidArgument, "--batch is about decode rows and --tg is 0, so there is none; give --tg or leave --batch out"};
  return model_case.shape.empty() ? Status() : SpecOf(model_case).status();
}

Result<ModelRun> LoadModelRun(const ModelCase& model_case, const RunOptions& options) {
  if (Status status = CheckModelCase(model_case); !status.ok()) return status;
  const int64_t longest = std::max(model_case.pp, model_case.tg);
  ModelOptions model_options;
  model_options.activation = options.activation;
  model_options.mode = options.mode;
  model_options.kernel = options.kernel;
  model_options.device = options.device;
  model_options.panel_cache = options.panel_cache;
  model_options.progress = model_case.progress;
  Result<Model> model = MakeModel(model_case, model_options);
  if (!model) return model.error();
  if (options.after_loading) options.after_loading(model->panel_cache());
  if (longest > model->max_context()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} tokens were asked for, but the model's longest sequence is {}; give smaller --pp and --tg", longest,
                              model->max_context()));
  }
  const int64_t sequences = *std::max_element(model_case.batches.begin(), model_case.batches.end());
  Result<KvCache> cache = model->NewCache(longest, sequences);
  if (!cache) return cache.error();
  ModelRun run{std::move(model).value(), std::move(cache).value(), {}, {}, {}};
  const ModelConfig& config = run.model.config();
  run.ids.resize(static_cast<size_t>(longest * sequences));
  for (size_t i = 0; i < run.ids.size(); ++i) run.ids[i] = static_cast<int32_t>((i * 7919 + 13) % static_cast<size_t>(config.vocab));
  run.heaviest = FindHeaviest(run.model);
  run.row.name = NameOf(model_case);
  run.row.kernel = run.heaviest.kernel;
  run.row.scheme = run.heaviest.scheme;
  run.row.mode = options.mode == Mode::kFast ? "fast" : "exact";
  run.row.activation = DTypeName(options.activation);
  run.row.E = std::max<int64_t>(1, config.experts);
  run.row.top_k = std::max<int64_t>(1, config.top_k);
  run.row.threads = options.threads;
  return run;
}

Status ModelRun::Truncate(int64_t length) {
  for (int64_t sequence = 0; sequence < cache.sequences(); ++sequence) {
    if (Status status = cache.Truncate(std::min(length, cache.length(sequence)), sequence); !status.ok()) return status;
  }
  return {};
}

Status SplitStep(ModelRun& run, int64_t tg, double budget_s, ExecContext& ctx) {
  if (Status status = run.Truncate(tg / 2); !status.ok()) return status;
  const auto repetitions = static_cast<int>(std::clamp(budget_s * 1e6 / run.row.median_us, 5.0, 100.0));
  const Result<StepProfile> profile = run.model.ProfileStep(run.StepIds(tg / 2, run.row.M), run.cache, repetitions, ctx);
  if (!profile) return profile.error();
  run.row.weights_us = profile->weights_us;
  run.row.attention_us = profile->attention_us;
  run.row.other_us = profile->other_us;
  return {};
}

}  // namespace billfish::bench
