// `billfish generate`: text after a prompt.
#include "billfish/generate.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/loaded_model.h"
#include "cli/print.h"
#include "cli/sampling.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

struct Options {
  std::string model, prompt, ids;
  int64_t tokens = 128;
  SamplingFlags sampling;
  bool stream = true, ignore_eos = false, special = false;
  Execution execution;
};

struct Written {
  std::string text;
  Status status;
};

Outcome GenerateText(const Options& options, bool json) {
  if (options.prompt.empty() && options.ids.empty()) {
    return Status(ErrorCode::kInvalidArgument, "generate needs a prompt; give -p TEXT, -p - for standard input, or --ids");
  }
  std::string prompt = options.prompt;
  if (prompt == "-") {
    Result<std::string> text = ReadText("-");
    if (!text) return text.error();
    prompt = std::move(text).value();
  }
  Result<LoadedModel> loaded = LoadModel(options.model, options.execution, true);
  if (!loaded) return loaded.error();
  Result<std::vector<int32_t>> ids = options.ids.empty() ? loaded->tokenizer->Encode(prompt, true) : ReadIds(options.ids);
  if (!ids) return ids.error();
  if (ids->empty()) return Status(ErrorCode::kInvalidArgument, "the prompt has no tokens; give at least one character");

  const Model& model = loaded->model;
  const auto prompt_tokens = static_cast<int64_t>(ids->size());
  const int64_t room = std::min(model.max_context(), prompt_tokens + options.tokens);
  if (prompt_tokens > model.max_context()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("the prompt has {} tokens, but the model's longest sequence is {}; give a shorter one", prompt_tokens,
                              model.max_context()));
  }
  Result<KvCache> cache = model.NewCache(room);
  if (!cache) return cache.error();
  GenerateOptions generate;
  generate.max_new_tokens = options.tokens;
  generate.sampling = options.sampling.ToOptions();
  generate.ignore_eos = options.ignore_eos;
  Workspace workspace;
  ExecContext ctx{workspace, options.execution.Threads()};

  const bool stream = options.stream && !json;
  StreamDecoder decoder(*loaded->tokenizer, !options.special);
  Written written;
  const auto on_token = [&](int32_t id) {
    Result<std::string> piece = decoder.Push(id);
    if (!piece) {
      written.status = piece.error();
      return false;
    }
    written.text += *piece;
    if (stream) {
      Print("{}", *piece);
      std::fflush(stdout);
    }
    return !Interrupted();
  };
  const Result<GenerateResult> result = Generate(model, *ids, generate, *cache, ctx, on_token);
  if (!result) return result.error();
  if (!written.status.ok()) return written.status;
  const std::string rest = decoder.Flush();
  written.text += rest;
  if (json) {
    Json document{{"text", written.text},
                  {"ids", result->ids},
                  {"stop", StopReasonName(result->stop)},
                  {"prompt_tokens", result->prompt_tokens},
                  {"new_tokens", result->ids.size()},
                  {"load_seconds", loaded->load_seconds},
                  {"panel_cache", {{"mapped", model.panel_cache().mapped}, {"written", model.panel_cache().written}}},
                  {"prefill_seconds", result->prefill_seconds},
                  {"prefill_tokens_per_second", result->prefill_tokens_per_second()},
                  {"decode_seconds", result->decode_seconds},
                  {"decode_tokens_per_second", result->decode_tokens_per_second()}};
    DescribeExecution(document, model, options.execution, ctx.threads);
    PrintJson(document);
  } else {
    Print("{}\n", stream ? rest : written.text);
    std::fflush(stdout);
    Note("\nprompt {} tokens at {:.1f} tokens/s, text {} tokens at {:.1f} tokens/s, {}, stopped by {}\n{}", result->prompt_tokens,
         result->prefill_tokens_per_second(), result->ids.size(), result->decode_tokens_per_second(), options.execution.Place(),
         StopReasonName(result->stop), KernelsText(model, options.execution));
  }
  return Interrupted() ? kExitInterrupted : kExitOk;
}

}  // namespace

void AddGenerate(Program& program) {
  CLI::App* verb = AddVerb(program, "generate", "Write text after a prompt; the text goes to standard output, the speed to standard error",
                           "  billfish generate models/tiny-moe-mxfp4 -p \"The meaning of\" -n 64\n"
                           "  billfish generate models/tiny-moe-mxfp4 -p \"Once\" --temp 0.8 --top-p 0.95 --seed 7\n"
                           "  fortune | billfish generate models/tiny-moe-mxfp4 -p - --json");
  auto options = std::make_shared<Options>();
  verb->add_option("model", options->model, "Model folder")->required();
  CLI::Option* prompt = verb->add_option("-p,--prompt", options->prompt, "The prompt; - reads standard input")->type_name("TEXT");
  verb->add_option("--ids", options->ids, "The prompt as token ids: a .npy or .safetensors file, or a list 1,2,3")
      ->type_name("IDS")
      ->excludes(prompt);
  verb->add_option("-n,--tokens", options->tokens, "At most this many new tokens")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str()
      ->type_name("N");
  AddSampling(verb, options->sampling);
  verb->add_flag("--stream,!--no-stream", options->stream, "Print the text as it is written (default) or all at the end");
  verb->add_flag("--ignore-eos", options->ignore_eos, "Go on after the end-of-text token");
  verb->add_flag("--special", options->special, "Print special tokens too");
  AddExecution(verb, options->execution);
  AddPanelCache(verb, options->execution.panel_cache);
  AddDevice(verb, options->execution);
  verb->callback([&program, options] { program.action = [&program, options] { return GenerateText(*options, program.json); }; });
}

}  // namespace billfish::cli
