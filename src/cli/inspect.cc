// `billfish inspect`: what a checkpoint holds and which kernel would run each of its weights. Reads headers only.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <tuple>

#include "billfish/backend.h"
#include "billfish/checkpoint.h"
#include "cli/json.h"
#include "cli/module_groups.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/table.h"
#include "cli/verb.h"
#include "cli/verdicts.h"

namespace billfish::cli {
namespace {

struct Options {
  std::string path;
  bool all = false;
  Execution execution;
};

struct Summary {
  std::string architecture, model_type;
  double parameters = 0;
  size_t module_bytes = 0, file_bytes = 0, other_bytes = 0;
  size_t other_tensors = 0;
};

std::string TextField(const Json& config, const char* key) {
  const auto field = config.find(key);
  if (field == config.end()) return "";
  if (field->is_array() && !field->empty() && field->front().is_string()) return field->front().get<std::string>();
  return field->is_string() ? field->get<std::string>() : "";
}

Summary Summarise(const Checkpoint& checkpoint, const std::vector<ModuleInfo>& modules) {
  Summary summary;
  const Json config = Json::parse(checkpoint.config_json(), nullptr, false);
  if (config.is_object()) {
    summary.architecture = TextField(config, "architectures");
    summary.model_type = TextField(config, "model_type");
  }
  size_t module_tensors = 0;
  for (const ModuleInfo& module : modules) {
    summary.parameters += static_cast<double>(module.E) * static_cast<double>(module.N) * static_cast<double>(module.K);
    summary.module_bytes += module.bytes;
    module_tensors += module.tensors.size();
  }
  for (const TensorInfo& tensor : checkpoint.tensors()) summary.file_bytes += tensor.bytes;
  summary.other_bytes = summary.file_bytes - std::min(summary.file_bytes, summary.module_bytes);
  summary.other_tensors = checkpoint.tensors().size() - std::min(checkpoint.tensors().size(), module_tensors);
  return summary;
}

double BitsPerWeight(size_t bytes, double weights) { return weights > 0 ? 8.0 * static_cast<double>(bytes) / weights : 0; }

std::string ShapeText(const ModuleInfo& module) {
  return module.E > 1 ? fmt::format("{} x {} x {}", module.E, module.N, module.K) : fmt::format("{} x {}", module.N, module.K);
}

Problem ProblemOf(const ModuleGroup& group, const Execution& execution) {
  Problem problem;
  problem.op = group.experts > 1 || group.first.E > 1 ? Op::kGroupedLinear : Op::kLinear;
  problem.scheme = group.first.scheme;
  problem.activation = execution.Activations();
  problem.mode = execution.ParsedMode();
  problem.E = std::max(group.first.E, group.experts);
  problem.N = group.first.N;
  problem.K = group.first.K;
  problem.act_order = group.first.act_order;
  return problem;
}

void PrintText(const Checkpoint& checkpoint, const Summary& summary, const std::vector<ModuleGroup>& groups, const Execution& execution) {
  Print("{}\n", checkpoint.path().string());
  if (!summary.architecture.empty()) Print("architecture  {} ({})\n", summary.architecture, summary.model_type);
  Print(
      "weights       {} in {} matrices, {:.2f} bits each\n", FormatCount(static_cast<long long>(summary.parameters)),
      [&] {
        int64_t count = 0;
        for (const ModuleGroup& group : groups) count += group.count;
        return count;
      }(),
      BitsPerWeight(summary.module_bytes, summary.parameters));
  Print("tensors       {} in {} file{}: {}, of which {} others (norms, biases) {}\n\n", checkpoint.tensors().size(),
        checkpoint.shards().size(), checkpoint.shards().size() == 1 ? "" : "s", FormatBytes(static_cast<double>(summary.file_bytes)),
        summary.other_tensors, FormatBytes(static_cast<double>(summary.other_bytes)));

  Table table({{"module"},
               {"count", Table::Align::kRight},
               {"scheme"},
               {"stored as"},
               {"shape", Table::Align::kRight},
               {"size", Table::Align::kRight},
               {"bits", Table::Align::kRight},
               {"kernel"}});
  // Problems that differ in their sizes alone get the same answers; show each set of answers once.
  std::map<std::string, std::pair<std::string, std::vector<Verdict>>> answers;
  for (const ModuleGroup& group : groups) {
    const Problem problem = ProblemOf(group, execution);
    const std::vector<Verdict> verdicts = Explain(problem);
    const std::string_view kernel = ChosenKernel(verdicts);
    table.AddRow({group.pattern, std::to_string(group.count), group.first.scheme.Name() + (group.first.act_order ? " act-order" : ""),
                  group.first.format, ShapeText(group.first), FormatBytes(static_cast<double>(group.bytes)),
                  fmt::format("{:.2f}", BitsPerWeight(group.bytes, group.weights)), std::string(kernel.empty() ? "none" : kernel)});
    const std::string text = VerdictsText(verdicts);
    answers.try_emplace(text, problem.ToString(), verdicts);
  }
  Print("{}\nWhich kernel runs on this machine, and why:\n", table.ToString());
  for (const auto& [text, example] : answers) Print("\n{}\n{}", example.first, text);
}

Json ToJson(const Checkpoint& checkpoint, const Summary& summary, const std::vector<ModuleGroup>& groups, const Execution& execution) {
  Json files = Json::array();
  for (const auto& shard : checkpoint.shards()) files.push_back(shard.filename().string());
  Json modules = Json::array();
  for (const ModuleGroup& group : groups) {
    const Problem problem = ProblemOf(group, execution);
    const std::vector<Verdict> verdicts = Explain(problem);
    modules.push_back({{"name", group.pattern},
                       {"count", group.count},
                       {"experts", problem.E},
                       {"scheme", group.first.scheme.Name()},
                       {"format", group.first.format},
                       {"E", group.first.E},
                       {"N", group.first.N},
                       {"K", group.first.K},
                       {"act_order", group.first.act_order},
                       {"bytes", group.bytes},
                       {"bits_per_weight", BitsPerWeight(group.bytes, group.weights)},
                       {"kernel", ChosenKernel(verdicts)},
                       {"verdicts", VerdictsJson(verdicts)}});
  }
  return {{"path", checkpoint.path().string()},
          {"architecture", summary.architecture},
          {"model_type", summary.model_type},
          {"weights", summary.parameters},
          {"bits_per_weight", BitsPerWeight(summary.module_bytes, summary.parameters)},
          {"bytes", summary.file_bytes},
          {"tensors", checkpoint.tensors().size()},
          {"other_tensors", summary.other_tensors},
          {"other_bytes", summary.other_bytes},
          {"files", files},
          {"modules", modules}};
}

Outcome Inspect(const Options& options, bool json) {
  const Result<Checkpoint> checkpoint = Checkpoint::Open(options.path);
  if (!checkpoint) return checkpoint.error();
  const Result<std::vector<ModuleInfo>> modules = checkpoint->Modules();
  if (!modules) return modules.error();
  const Summary summary = Summarise(*checkpoint, *modules);
  const std::vector<ModuleGroup> groups = GroupModules(*modules, options.all);
  if (json) {
    PrintJson(ToJson(*checkpoint, summary, groups, options.execution));
  } else {
    PrintText(*checkpoint, summary, groups, options.execution);
  }
  return kExitOk;
}

}  // namespace

void AddInspect(Program& program) {
  CLI::App* verb = AddVerb(program, "inspect", "Show what a checkpoint holds and which kernel would run; reads headers only",
                           "  billfish inspect models/tiny-moe-mxfp4\n"
                           "  billfish inspect model.safetensors --all --json\n"
                           "  billfish inspect models/tiny-moe-mxfp4 --mode fast");
  auto options = std::make_shared<Options>();
  verb->add_option("path", options->path, "A Hugging Face folder or one .safetensors file")->required();
  verb->add_flag("--all", options->all, "One line for every matrix instead of one for every kind");
  verb->add_option("--mode", options->execution.mode, "Choose kernels for this mode")
      ->check(CLI::IsMember({"exact", "fast"}))
      ->capture_default_str();
  verb->add_option("--activations", options->execution.activations, "Choose kernels for activations of this precision")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  verb->callback([&program, options] { program.action = [&program, options] { return Inspect(*options, program.json); }; });
}

}  // namespace billfish::cli
