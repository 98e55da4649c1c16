// `billfish eval`: perplexity of a model on a text or on token ids.
#include <fmt/format.h>

#include <memory>

#include "billfish/generate.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/loaded_model.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

struct Options {
  std::string model, ids, text;
  int64_t window = 512, windows = 0;
  Execution execution;
};

Outcome Evaluate(const Options& options, bool json) {
  if (options.ids.empty() == options.text.empty()) {
    return Status(ErrorCode::kInvalidArgument, "eval needs something to read; give either --ids FILE.npy or --text FILE");
  }
  const Result<LoadedModel> loaded = LoadModel(options.model, options.execution, !options.text.empty());
  if (!loaded) return loaded.error();
  std::vector<int32_t> ids;
  if (options.ids.empty()) {
    const Result<std::string> text = ReadText(options.text);
    if (!text) return text.error();
    Result<std::vector<int32_t>> encoded = loaded->tokenizer->Encode(*text, false);
    if (!encoded) return encoded.error();
    ids = std::move(encoded).value();
  } else {
    Result<std::vector<int32_t>> read = ReadIds(options.ids);
    if (!read) return read.error();
    ids = std::move(read).value();
  }
  Workspace workspace;
  ExecContext ctx{workspace, options.execution.Threads()};
  Result<PerplexityResult> result = Status(ErrorCode::kInvalidArgument, "");
  {
    Progress progress("eval", "windows");
    result = Perplexity(loaded->model, ids, options.window, options.windows, ctx, [&](const PerplexityProgress& state) {
      progress.Update(state.windows_done, state.windows, fmt::format("nll {:.4f}", state.mean_nll));
      return !Interrupted();
    });
  }
  if (!result) return result.error();
  const double rate = result->seconds > 0 ? static_cast<double>(result->tokens) / result->seconds : 0;
  if (json) {
    Json document{{"perplexity", result->perplexity}, {"mean_nll", result->mean_nll}, {"tokens", result->tokens},
                  {"window", options.window},         {"windows", result->windows},   {"seconds", result->seconds},
                  {"tokens_per_second", rate}};
    DescribeExecution(document, loaded->model, options.execution, ctx.threads);
    PrintJson(document);
  } else {
    Print("perplexity {:.4f} (mean negative log-likelihood {:.5f}) over {} tokens in {} windows of {}\n", result->perplexity,
          result->mean_nll, FormatCount(result->tokens), result->windows, options.window);
    std::fflush(stdout);
    Note("{:.0f} tokens/s, {} in all, {}, mode {}, {} activations\n{}", rate, FormatSeconds(result->seconds), options.execution.Place(),
         options.execution.mode, options.execution.activations, KernelsText(loaded->model, options.execution));
  }
  return kExitOk;
}

}  // namespace

void AddEval(Program& program) {
  CLI::App* verb = AddVerb(program, "eval", "Perplexity on a text or on token ids",
                           "  billfish eval models/tiny-moe-mxfp4 --ids val_ids.npy --window 512 --windows 64\n"
                           "  billfish eval models/tiny-moe-mxfp4 --text sample.txt --mode fast --json\n"
                           "Windows do not overlap; each starts with an empty cache and all its next tokens are scored.");
  auto options = std::make_shared<Options>();
  verb->add_option("model", options->model, "Model folder")->required();
  CLI::Option* ids = verb->add_option("--ids", options->ids, "Token ids: a .npy or .safetensors file, or a list 1,2,3")->type_name("IDS");
  verb->add_option("--text", options->text, "A text file; - reads standard input")->type_name("FILE")->excludes(ids);
  verb->add_option("--window", options->window, "Tokens of one window")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  verb->add_option("--windows", options->windows, "Windows; 0 = as many as there are tokens for")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str()
      ->type_name("N");
  AddExecution(verb, options->execution);
  AddPanelCache(verb, options->execution.panel_cache);
  AddDevice(verb, options->execution);
  verb->callback([&program, options] { program.action = [&program, options] { return Evaluate(*options, program.json); }; });
}

}  // namespace billfish::cli
