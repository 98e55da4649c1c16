// `billfish logits`: the model's raw answers, for comparison with other programs.
#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "billfish/safetensors.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/loaded_model.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

struct Options {
  std::string model, ids, out;
  Execution execution;
};

Outcome WriteLogits(const Options& options, bool json) {
  const Result<std::vector<int32_t>> ids = ReadIds(options.ids);
  if (!ids) return ids.error();
  const Result<LoadedModel> loaded = LoadModel(options.model, options.execution, false);
  if (!loaded) return loaded.error();
  const Model& model = loaded->model;
  const auto T = static_cast<int64_t>(ids->size()), V = model.config().vocab;
  if (T > model.max_context()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("--ids has {} tokens, but the model's longest sequence is {}; give fewer", T, model.max_context()));
  }
  Result<KvCache> cache = model.NewCache(T);
  if (!cache) return cache.error();
  std::vector<float> logits(static_cast<size_t>(T * V));
  Workspace workspace;
  ExecContext ctx{workspace, options.execution.Threads()};
  const auto start = std::chrono::steady_clock::now();
  {
    Progress progress("logits", "tokens");
    for (int64_t done = 0; done < T;) {
      const int64_t count = std::min(Model::kPrefillChunk, T - done);
      const TensorView rows(logits.data() + done * V, DType::kF32, {count, V});
      const Status status =
          model.Forward(std::span(*ids).subspan(static_cast<size_t>(done), static_cast<size_t>(count)), *cache, rows, ctx);
      if (!status.ok()) return status;
      done += count;
      progress.Update(done, T);
      if (Interrupted())
        return Status(ErrorCode::kCancelled, fmt::format("interrupted after {} of {} tokens; {} is untouched", done, T, options.out));
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const SafetensorsEntry entry{"logits", DType::kF32, {T, V}, std::as_bytes(std::span(logits))};
  if (Status status = WriteSafetensors(options.out, std::span(&entry, 1)); !status.ok()) return status;
  if (json) {
    Json document{{"out", options.out},
                  {"tokens", T},
                  {"vocabulary", V},
                  {"seconds", seconds},
                  {"tokens_per_second", seconds > 0 ? static_cast<double>(T) / seconds : 0}};
    DescribeExecution(document, model, options.execution, ctx.threads);
    PrintJson(document);
  } else {
    Print("{}\n", options.out);
    std::fflush(stdout);
    Note("logits f32[{}, {}], {:.0f} tokens/s, {}\n{}", T, V, seconds > 0 ? static_cast<double>(T) / seconds : 0, options.execution.Place(),
         KernelsText(model, options.execution));
  }
  return kExitOk;
}

}  // namespace

void AddLogits(Program& program) {
  CLI::App* verb = AddVerb(program, "logits", "Write the logits of a token sequence into a safetensors file: tensor `logits`, f32 [T, V]",
                           "  billfish logits models/tiny-moe-mxfp4 --ids 1,2,3 --out logits.safetensors\n"
                           "  billfish logits models/tiny-moe-mxfp4 --ids ids.npy --out logits.safetensors --activations f32");
  auto options = std::make_shared<Options>();
  verb->add_option("model", options->model, "Model folder")->required();
  verb->add_option("--ids", options->ids, "Token ids: a .npy or .safetensors file, or a list 1,2,3")->required()->type_name("IDS");
  verb->add_option("-o,--out", options->out, "File to write, completely or not at all")->required()->type_name("FILE");
  AddExecution(verb, options->execution);
  AddPanelCache(verb, options->execution.panel_cache);
  AddDevice(verb, options->execution);
  verb->callback([&program, options] { program.action = [&program, options] { return WriteLogits(*options, program.json); }; });
}

}  // namespace billfish::cli
