// `billfish chat`: a conversation on the terminal, in the form of the model's chat template.
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <iostream>
#include <memory>

#include "billfish/chat_template.h"
#include "billfish/generate.h"
#include "cli/interrupt.h"
#include "cli/loaded_model.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/sampling.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

struct Options {
  std::string model, system;
  int64_t tokens = 512;
  SamplingFlags sampling;
  Execution execution;
};

class Conversation {
 public:
  Conversation(const LoadedModel& loaded, const ChatTemplate& chat_template, const Options& options)
      : loaded_(loaded), chat_template_(chat_template), options_(options) {
    if (!options.system.empty()) messages_.push_back({.role = "system", .content = options.system});
  }

  Status Open() {
    Result<KvCache> cache = loaded_.model.NewCache(loaded_.model.max_context());
    if (!cache) return cache.error();
    cache_ = std::move(cache).value();
    return {};
  }

  /// Prints the model's answer as it is written.
  Result<GenerateResult> Answer(const std::string& line, std::string& text) {
    messages_.push_back({.role = "user", .content = line});
    const Result<std::string> prompt = chat_template_.Render(messages_);
    if (!prompt) return prompt.error();
    const Result<std::vector<int32_t>> ids = loaded_.tokenizer->Encode(*prompt, false);
    if (!ids) return ids.error();
    if (static_cast<int64_t>(ids->size()) >= loaded_.model.max_context()) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("the conversation has {} tokens, more than the {} that this model can hold; start a new one", ids->size(),
                                loaded_.model.max_context()));
    }
    // What the new prompt shares with what the cache holds is not computed again.
    size_t shared = 0;
    while (shared < cached_.size() && shared + 1 < ids->size() && cached_[shared] == (*ids)[shared]) ++shared;
    if (Status status = cache_.Truncate(static_cast<int64_t>(shared)); !status.ok()) return status;

    GenerateOptions generate;
    generate.max_new_tokens = options_.tokens;
    generate.sampling = options_.sampling.ToOptions();
    ExecContext ctx{workspace_, options_.execution.Threads()};
    StreamDecoder decoder(*loaded_.tokenizer);
    text.clear();
    const auto show = [&](const std::string& piece) {
      text += piece;
      if (options_json_) return;
      Print("{}", piece);
      std::fflush(stdout);
    };
    Result<GenerateResult> result = Generate(loaded_.model, std::span(*ids).subspan(shared), generate, cache_, ctx, [&](int32_t id) {
      const Result<std::string> piece = decoder.Push(id);
      if (piece) show(*piece);
      return !Interrupted();
    });
    if (!result) return result;
    show(decoder.Flush());
    cached_ = *ids;
    cached_.insert(cached_.end(), result->ids.begin(), result->ids.end());
    cached_.resize(static_cast<size_t>(std::min<int64_t>(cache_.length(), static_cast<int64_t>(cached_.size()))));
    messages_.push_back({.role = "assistant", .content = text});
    return result;
  }

  void SetJson(bool json) { options_json_ = json; }

 private:
  const LoadedModel& loaded_;
  const ChatTemplate& chat_template_;
  const Options& options_;
  std::vector<ChatMessage> messages_;
  std::vector<int32_t> cached_;  ///< the tokens that cache_ holds
  KvCache cache_;
  Workspace workspace_;
  bool options_json_ = false;
};

Outcome Chat(const Options& options, bool json) {
  // The template decides whether there is anything to do, so it comes before the weights.
  const Result<ChatTemplate> chat_template = ChatTemplate::Load(options.model);
  if (!chat_template) return chat_template.error();
  if (!chat_template->present()) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{} has no chat template, so it was not trained to converse; use `billfish generate` with "
                              "it, or add a chat_template.jinja",
                              options.model));
  }
  const Result<LoadedModel> loaded = LoadModel(options.model, options.execution, true);
  if (!loaded) return loaded.error();
  Conversation conversation(*loaded, *chat_template, options);
  conversation.SetJson(json);
  if (Status status = conversation.Open(); !status.ok()) return status;
  const bool person = StderrIsInteractive();
  if (person) Note("Say something; Ctrl-C stops an answer, Ctrl-D ends.\n");
  std::string line, text;
  while (true) {
    if (person) Note("> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    ClearInterrupt();
    const Result<GenerateResult> result = conversation.Answer(line, text);
    if (!result) return result.error();
    if (json) {
      // One document a line: this verb's output is a stream.
      Print("{}\n", Json{{"text", text},
                         {"stop", StopReasonName(result->stop)},
                         {"prompt_tokens", result->prompt_tokens},
                         {"new_tokens", result->ids.size()},
                         {"decode_tokens_per_second", result->decode_tokens_per_second()}}
                        .dump(-1, ' ', false, Json::error_handler_t::replace));
    } else {
      Print("\n");
      if (person) Note("({} tokens, {:.1f} tokens/s)\n", result->ids.size(), result->decode_tokens_per_second());
    }
    std::fflush(stdout);
  }
  return Interrupted() ? kExitInterrupted : kExitOk;
}

}  // namespace

void AddChat(Program& program) {
  CLI::App* verb = AddVerb(program, "chat", "Converse with a model that has a chat template; one line is one message",
                           "  billfish chat path/to/model --system \"Answer briefly.\" --temp 0.7\n"
                           "  echo \"What is 2 + 2?\" | billfish chat path/to/model --json     (one JSON document for each answer)");
  auto options = std::make_shared<Options>();
  verb->add_option("model", options->model, "Model folder")->required();
  verb->add_option("--system", options->system, "What the model is told first")->type_name("TEXT");
  verb->add_option("-n,--tokens", options->tokens, "At most this many tokens for each answer")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str()
      ->type_name("N");
  AddSampling(verb, options->sampling);
  AddExecution(verb, options->execution);
  AddPanelCache(verb, options->execution.panel_cache);
  AddDevice(verb, options->execution);
  verb->callback([&program, options] { program.action = [&program, options] { return Chat(*options, program.json); }; });
}

}  // namespace billfish::cli
