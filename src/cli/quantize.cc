// `billfish quantize` and `billfish dequantize`: a model folder in, a model folder out.
#include "billfish/quantize.h"

#include <fmt/format.h>

#include <memory>

#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

struct Options {
  std::string source, destination;
  std::string scheme = "mxfp4", modules = "linears", layout = "compressed-tensors", dtype = "bf16", max_shard = "4GB";
  std::vector<std::string> ignore;
  bool asymmetric = false, overwrite = false, requantize = false;
  int threads = 0;
};

/// Draws the bar and remembers the last state for the summary.
class Reporter {
 public:
  explicit Reporter(const std::string& label) : progress_(label, "matrices") { CatchInterrupts(); }

  std::function<bool(const QuantizeProgress&)> Callback() {
    return [this](const QuantizeProgress& state) {
      last_ = state;
      last_.tensor = {};
      progress_.Update(state.tensors_done, state.tensors_total, std::string(state.tensor));
      return !Interrupted();
    };
  }
  const QuantizeProgress& last() const { return last_; }

 private:
  Progress progress_;
  QuantizeProgress last_;
};

/// An interrupted run is not lost; say so.
Status Explained(Status status) {
  if (status.code() != ErrorCode::kCancelled) return status;
  return {ErrorCode::kCancelled, "interrupted; the same command continues where this one stopped"};
}

Outcome Finish(const Options& options, const QuantizeProgress& done, const std::string& what, bool json) {
  if (json) {
    PrintJson({{"source", options.source},
               {"destination", options.destination},
               {"scheme", what},
               {"tensors", done.tensors_total},
               {"bytes", done.bytes_total},
               {"bytes_resumed", done.bytes_resumed}});
  } else {
    Print("{}\n", options.destination);
    std::fflush(stdout);
    Note("{}: {} tensors, {}{}\n", what, done.tensors_total, FormatBytes(static_cast<double>(done.bytes_total)),
         done.bytes_resumed > 0
             ? fmt::format(", of which {} came from an interrupted run", FormatBytes(static_cast<double>(done.bytes_resumed)))
             : "");
  }
  return kExitOk;
}

Outcome Quantize(const Options& options, bool json) {
  const bool already_asymmetric = options.scheme.size() > 5 && options.scheme.ends_with("-asym");
  const std::string name = options.scheme + (options.asymmetric && !already_asymmetric ? "-asym" : "");
  const Result<QuantScheme> scheme = SchemeByName(name);
  if (!scheme) return scheme.error();
  const Result<QuantModules> modules = QuantModulesByName(options.modules);
  if (!modules) return modules.error();
  const Result<QuantLayout> layout = QuantLayoutByName(options.layout);
  if (!layout) return layout.error();
  const Result<int64_t> max_shard = ParseSize(options.max_shard, "--max-shard-size");
  if (!max_shard) return max_shard.error();
  Reporter reporter("quantize");
  QuantizeOptions quantize;
  quantize.scheme = *scheme;
  quantize.modules = *modules;
  quantize.layout = *layout;
  quantize.ignore = options.ignore;
  quantize.requantize = options.requantize;
  quantize.max_shard_bytes = *max_shard;
  quantize.threads = options.threads;
  quantize.overwrite = options.overwrite;
  quantize.progress = reporter.Callback();
  if (Status status = QuantizeCheckpoint(options.source, options.destination, quantize); !status.ok()) return Explained(std::move(status));
  return Finish(options, reporter.last(), name, json);
}

Outcome Dequantize(const Options& options, bool json) {
  const Result<int64_t> max_shard = ParseSize(options.max_shard, "--max-shard-size");
  if (!max_shard) return max_shard.error();
  Reporter reporter("dequantize");
  DequantizeOptions dequantize;
  dequantize.max_shard_bytes = *max_shard;
  dequantize.threads = options.threads;
  dequantize.overwrite = options.overwrite;
  dequantize.progress = reporter.Callback();
  const DType dtype = options.dtype == "f32" ? DType::kF32 : options.dtype == "f16" ? DType::kF16 : DType::kBF16;
  if (Status status = DequantizeCheckpoint(options.source, options.destination, dtype, dequantize); !status.ok()) {
    return Explained(std::move(status));
  }
  return Finish(options, reporter.last(), options.dtype, json);
}

void AddCommon(CLI::App* verb, Options& options) {
  verb->add_option("source", options.source, "Model folder to read")->required();
  verb->add_option("destination", options.destination, "Model folder to write; appears complete or not at all")->required();
  verb->add_option("--max-shard-size", options.max_shard, "Longest weight file, for example 500MB or 4GB")
      ->capture_default_str()
      ->type_name("SIZE");
  verb->add_flag("--overwrite", options.overwrite, "Replace the destination if it exists, at the very end and in one step");
  verb->add_option("-t,--threads", options.threads, "Threads; default BILLFISH_THREADS or every CPU this process may use")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
}

}  // namespace

void AddQuantize(Program& program) {
  CLI::App* verb = AddVerb(program, "quantize", "Write a model with 4-bit (or 8-bit) weights",
                           "  billfish quantize tiny-moe tiny-moe-mxfp4 --scheme mxfp4\n"
                           "  billfish quantize model model-int4 --scheme int4-g64 --asym --layout gptq --modules experts\n"
                           "Prints the destination. An interrupted run continues where it stopped when the same command is given again.");
  auto options = std::make_shared<Options>();
  AddCommon(verb, *options);
  verb->add_option("--scheme", options->scheme,
                   "mxfp4, nvfp4, int4-g32, int4-g64, int4-g128, int4-channel, fp8-tensor, fp8-channel, fp8-block128")
      ->capture_default_str()
      ->type_name("NAME");
  verb->add_flag("--asym", options->asymmetric, "int4 with zero points");
  verb->add_option("--modules", options->modules, "Routed experts; all linears of the layers; those and the output head")
      ->check(CLI::IsMember({"experts", "linears", "all"}))
      ->capture_default_str();
  verb->add_option("--layout", options->layout, "How the files hold the numbers")
      ->check(CLI::IsMember({"compressed-tensors", "gptq", "gpt-oss"}))
      ->capture_default_str();
  verb->add_option("--ignore", options->ignore, "Leave this module as it is: a name, or re: and a regular expression; may be repeated")
      ->type_name("NAME");
  verb->add_flag("--requantize", options->requantize, "Accept a quantised source whose weights lose accuracy a second time");
  verb->callback([&program, options] { program.action = [&program, options] { return Quantize(*options, program.json); }; });
}

void AddDequantize(Program& program) {
  CLI::App* verb = AddVerb(program, "dequantize", "Write a quantised model with plain weights",
                           "  billfish dequantize tiny-moe-mxfp4 tiny-moe-bf16\n"
                           "  billfish dequantize tiny-moe-mxfp4 tiny-moe-f32 --dtype f32");
  auto options = std::make_shared<Options>();
  AddCommon(verb, *options);
  verb->add_option("--dtype", options->dtype, "Type of the plain weights")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}))
      ->capture_default_str();
  verb->callback([&program, options] { program.action = [&program, options] { return Dequantize(*options, program.json); }; });
}

}  // namespace billfish::cli
