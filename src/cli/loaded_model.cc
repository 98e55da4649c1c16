#include "cli/loaded_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "cli/interrupt.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/table.h"

namespace billfish::cli {
namespace {

struct KernelUse {
  std::string kernel, scheme, reason;
  int64_t matrices = 0;
  size_t bytes = 0;
};

std::string ReasonFor(const ModuleSummary& module, const Execution& execution) {
  const Result<QuantScheme> scheme = SchemeByName(module.scheme);
  if (!scheme) return "";
  Problem problem;
  problem.op = module.E > 1 ? Op::kGroupedLinear : Op::kLinear;
  problem.scheme = *scheme;
  problem.activation = execution.Activations();
  problem.mode = execution.ParsedMode();
  problem.device = ParseDevice(execution.device);
  problem.E = module.E, problem.N = module.N, problem.K = module.K;
  for (const Verdict& verdict : Explain(problem)) {
    if (verdict.kernel == module.kernel) return verdict.reason;
  }
  return "";
}

/// One entry for each pair of kernel and scheme, most bytes first.
std::vector<KernelUse> KernelsOf(const Model& model, const Execution& execution) {
  std::vector<KernelUse> uses;
  for (const ModuleSummary& module : model.modules()) {
    auto use = std::find_if(uses.begin(), uses.end(),
                            [&](const KernelUse& known) { return known.kernel == module.kernel && known.scheme == module.scheme; });
    if (use == uses.end()) {
      uses.push_back({module.kernel, module.scheme, ReasonFor(module, execution), 0, 0});
      use = uses.end() - 1;
    }
    use->matrices += module.E;
    use->bytes += module.weight_bytes;
  }
  std::stable_sort(uses.begin(), uses.end(), [](const KernelUse& a, const KernelUse& b) { return a.bytes > b.bytes; });
  return uses;
}

}  // namespace

void SayWhatTheCacheDid(const std::string& folder, const PanelStore::Report& report) {
  Note("panel cache {}: {} matrices mapped ({}), {} written ({})\n", folder, report.mapped,
       FormatBytes(static_cast<double>(report.mapped_bytes)), report.written, FormatBytes(static_cast<double>(report.written_bytes)));
  if (!report.note.empty()) Note("panel cache: {}\n", report.note);
}

Result<LoadedModel> LoadModel(const std::string& path, const Execution& execution, bool with_tokenizer, int64_t max_context) {
  CatchInterrupts();
  LoadedModel loaded;
  const auto start = std::chrono::steady_clock::now();
  {
    Progress progress("loading", "layers");
    ModelOptions options;
    options.activation = execution.Activations();
    options.mode = execution.ParsedMode();
    options.kernel = execution.kernel;
    options.device = ParseDevice(execution.device);
    options.max_context = max_context;
    options.panel_cache = execution.panel_cache;
    options.progress = [&](const LoadProgress& state) {
      progress.Update(state.layers_done, state.layers, FormatBytes(static_cast<double>(state.bytes)));
      return !Interrupted();
    };
    Result<Model> model = Model::Load(path, options);
    if (!model) return model.error();
    loaded.model = std::move(model).value();
  }
  if (!execution.panel_cache.empty()) SayWhatTheCacheDid(execution.panel_cache, loaded.model.panel_cache());
  if (with_tokenizer) {
    Result<Tokenizer> tokenizer = Tokenizer::Load(path);
    if (!tokenizer) return tokenizer.error();
    loaded.tokenizer = std::move(tokenizer).value();
  }
  loaded.load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return loaded;
}

std::string KernelsText(const Model& model, const Execution& execution) {
  std::string text;
  for (const KernelUse& use : KernelsOf(model, execution)) {
    text += fmt::format("{:<10} {:>4} matrices, {:>9}: {}\n", use.scheme, use.matrices, FormatBytes(static_cast<double>(use.bytes)),
                        use.kernel);
    if (!use.reason.empty()) text += "           " + Wrap(use.reason, 107, 11) + "\n";
  }
  return text;
}

void DescribeExecution(Json& document, const Model& model, const Execution& execution, int threads) {
  document["device"] = execution.device;
  document["threads"] = threads;
  document["mode"] = execution.mode;
  document["activations"] = execution.activations;
  Json& kernels = document["kernels"] = Json::array();
  for (const KernelUse& use : KernelsOf(model, execution)) {
    kernels.push_back(
        {{"kernel", use.kernel}, {"scheme", use.scheme}, {"matrices", use.matrices}, {"bytes", use.bytes}, {"reason", use.reason}});
  }
}

}  // namespace billfish::cli
