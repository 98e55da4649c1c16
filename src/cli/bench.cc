// `billfish bench`: times kernels and models against limits measured in the same run.
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <memory>

#include "bench/cases.h"
#include "bench/chart.h"
#include "bench/model_shapes.h"
#include "bench/row.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/loaded_model.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

struct Options {
  std::string shapes, schemes = "mxfp4,nvfp4,int4-g32,int4-g64,int4-g128", tokens;
  std::string modes = "exact", activations = "bf16", kernel;
  std::string device = "cpu";
  bool zipf = false;
  int threads = 0;
  double seconds = 0.5;
  int64_t experts = 32, top_k = 4;
  bool block = false;
  bench::ModelCase model;
  std::string batches = "1";
  std::string panel_cache;
  std::string svg, chart = "roofline", from;
};

Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (out) return {};
  return {ErrorCode::kIo, fmt::format("{} cannot be written; check that its folder exists and has room", path)};
}

Outcome Finish(const bench::Report& report, const Options& options, bool json) {
  if (!options.svg.empty()) {
    const Result<std::string> picture = options.chart == "bars" ? bench::DrawBars(report) : bench::DrawRoofline(report);
    if (!picture) return picture.error();
    if (Status status = WriteText(options.svg, *picture); !status.ok()) return status;
    if (!json) Note("drawn into {}\n", options.svg);
  }
  if (json) {
    PrintJson(bench::ToJson(report));
  } else {
    Print("{}", bench::ToText(report));
  }
  return kExitOk;
}

Result<std::vector<Mode>> ParseModes(const std::string& text) {
  std::vector<Mode> modes;
  for (const std::string& item : SplitList(text)) {
    if (item != "exact" && item != "fast") {
      return Status(ErrorCode::kInvalidArgument, fmt::format("--mode got '{}'; give exact, fast or exact,fast", item));
    }
    modes.push_back(item == "fast" ? Mode::kFast : Mode::kExact);
  }
  if (modes.empty()) return Status(ErrorCode::kInvalidArgument, "--mode got nothing; give exact, fast or exact,fast");
  return modes;
}

bench::RunOptions RunOptionsOf(const Options& options, Mode mode) {
  return {.activation = ParseActivations(options.activations),
          .mode = mode,
          .kernel = options.kernel,
          .threads = ThreadsOr(options.threads),
          .budget_s = options.seconds,
          .device = ParseDevice(options.device),
          .zipf = options.zipf};
}

Outcome BenchKernels(const Options& options, bool moe, bool json) {
  const auto shapes = ParseShapes(options.shapes, "--shapes");
  if (!shapes) return shapes.error();
  const auto tokens = ParseCounts(options.tokens, "--m", 65536);
  if (!tokens) return tokens.error();
  const auto modes = ParseModes(options.modes);
  if (!modes) return modes.error();
  const std::vector<std::string> schemes = SplitList(options.schemes);
  for (const std::string& name : schemes) {
    if (const auto scheme = SchemeByName(name); !scheme) return scheme.error();
  }
  CatchInterrupts();
  Progress progress(moe ? "bench moe" : "bench linear", "rows");
  const bool gpu = ParseDevice(options.device).kind == Device::Kind::kCuda;
  Result<bench::Report> begun = gpu ? bench::NewCudaReport(ParseDevice(options.device)) : bench::NewReport(ThreadsOr(options.threads));
  if (!begun) return begun.error();
  bench::Report report = std::move(begun).value();
  const auto total = static_cast<int64_t>(shapes->size() * schemes.size() * modes->size() * tokens->size());
  const bench::RowSink sink = [&](const bench::Row& row) {
    report.rows.push_back(row);
    progress.Update(static_cast<int64_t>(report.rows.size()), total, row.scheme);
    return !Interrupted();
  };
  for (const Shape& shape : *shapes) {
    for (const Mode mode : *modes) {
      for (const std::string& scheme : schemes) {
        bench::KernelCase kernel_case{.N = shape.N, .K = shape.K, .E = 0, .top_k = 0, .whole_block = options.block, .scheme = scheme};
        if (moe) kernel_case.E = options.experts, kernel_case.top_k = options.top_k;
        const bench::RunOptions run = RunOptionsOf(options, mode);
        const Status status =
            gpu ? (moe ? bench::BenchMoeCuda : bench::BenchLinearCuda)(kernel_case, *tokens, run, report.cuda_limits, sink)
                : (moe ? bench::BenchMoe : bench::BenchLinear)(kernel_case, *tokens, run, report.limits, sink);
        if (!status.ok()) return status;
      }
    }
  }
  return Finish(report, options, json);
}

Outcome BenchModels(const Options& options, bool json) {
  const auto modes = ParseModes(options.modes);
  if (!modes) return modes.error();
  Result<std::vector<int64_t>> batches = ParseCounts(options.batches, "--batch", Model::kMaxSequences);
  if (!batches) return batches.error();
  bench::ModelCase model_case = options.model;
  model_case.batches = std::move(batches).value();
  if (Status status = bench::CheckModelCase(model_case); !status.ok()) return status;
  CatchInterrupts();
  const bool gpu = ParseDevice(options.device).kind == Device::Kind::kCuda;
  Result<bench::Report> begun = gpu ? bench::NewCudaReport(ParseDevice(options.device)) : bench::NewReport(ThreadsOr(options.threads));
  if (!begun) return begun.error();
  bench::Report report = std::move(begun).value();
  const bench::RowSink sink = [&](const bench::Row& row) {
    report.rows.push_back(row);
    return !Interrupted();
  };
  Progress progress(options.model.shape.empty() ? "loading" : "making weights", "layers");
  model_case.progress = [&](const LoadProgress& state) {
    progress.Update(state.layers_done, state.layers, FormatBytes(static_cast<double>(state.bytes)));
    return !Interrupted();
  };
  for (const Mode mode : *modes) {
    bench::RunOptions run = RunOptionsOf(options, mode);
    run.panel_cache = options.panel_cache;
    if (!options.panel_cache.empty()) {
      run.after_loading = [&](const PanelStore::Report& cache) { SayWhatTheCacheDid(options.panel_cache, cache); };
    }
    const Status status =
        gpu ? bench::BenchModelCuda(model_case, run, report.cuda_limits, sink) : bench::BenchModel(model_case, run, report.limits, sink);
    if (!status.ok()) return status;
  }
  return Finish(report, options, json);
}

Outcome Redraw(const Options& options, bool json) {
  const Result<bench::Report> report = bench::ReadReport(options.from);
  if (!report) return report.error();
  return Finish(*report, options, json);
}

void AddCommon(CLI::App* verb, Options& options, Program& program) {
  verb->set_help_flag("-h,--help", "Show this help and exit");
  verb->add_flag("--json", program.json, "Print one JSON document on standard output and nothing else");
  verb->add_option("-t,--threads", options.threads, "Threads; default BILLFISH_THREADS or every CPU this process may use")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  verb->add_option("--mode", options.modes, "exact, fast or exact,fast")->capture_default_str()->type_name("LIST");
  verb->add_option("--activations", options.activations, "Precision of the activations")
      ->check(CLI::IsMember({"bf16", "f32", "f16"}))
      ->capture_default_str();
  verb->add_option("--device", options.device, "cpu, cuda or cuda:N")->check(kDeviceName)->capture_default_str();
  verb->add_option("--kernel", options.kernel, "Insist on this kernel or tier (`billfish explain` lists them)")->type_name("NAME");
  verb->add_option("--seconds", options.seconds, "Time of the repetitions of each row")
      ->check(CLI::Range(0.001, 600.0))
      ->capture_default_str();
  verb->add_option("--svg", options.svg, "Draw the rows into this file")->type_name("FILE");
  verb->add_option("--chart", options.chart, "What to draw")->check(CLI::IsMember({"roofline", "bars"}))->capture_default_str();
}

void AddKernelOptions(CLI::App* verb, Options& options) {
  verb->add_option("--shapes", options.shapes, "Rows x columns of the weight")->capture_default_str()->type_name("NxK,...");
  verb->add_option("--scheme", options.schemes, "Weight schemes")->capture_default_str()->type_name("LIST");
  verb->add_option("--m", options.tokens, "Tokens of one call")->capture_default_str()->type_name("LIST");
}

}  // namespace

void AddBench(Program& program) {
  CLI::App* verb = AddVerb(program, "bench", "Time kernels and models against limits measured in the same run",
                           "  billfish bench linear\n"
                           "  billfish bench moe --m 1,64,512 --scheme mxfp4 --mode exact,fast --svg moe.svg\n"
                           "  billfish bench model models/tiny-moe-mxfp4 --json > rows.json\n"
                           "  billfish bench model --shape qwen3-30b-a3b --layers 2 --batch 1,16\n"
                           "  billfish bench --from rows.json --svg bars.svg --chart bars\n"
                           "`of lim` is the time the call would take at the limit over the time it took: weights rotate over more copies\n"
                           "than caches hold, and the memory's bandwidth is probed around every repetition.");
  auto options = std::make_shared<Options>();
  verb->add_option("--from", options->from, "Show and draw the rows of a saved --json report instead of timing")->type_name("FILE");
  verb->add_option("--svg", options->svg, "Draw the rows into this file")->type_name("FILE");
  verb->add_option("--chart", options->chart, "What to draw")->check(CLI::IsMember({"roofline", "bars"}))->capture_default_str();
  verb->require_subcommand(0, 1);
  verb->callback([&program, options, verb] {
    if (!verb->get_subcommands().empty()) return;
    if (options->from.empty()) throw CLI::RequiredError("bench needs linear, moe, model or --from FILE; one of them");
    program.action = [&program, options] { return Redraw(*options, program.json); };
  });

  CLI::App* linear = verb->add_subcommand("linear", "Dense linears y = x . W^T");
  auto linear_options = std::make_shared<Options>();
  linear_options->shapes = "4096x4096,14336x4096";
  linear_options->tokens = "1,4,16,64,256,512";
  AddCommon(linear, *linear_options, program);
  AddKernelOptions(linear, *linear_options);
  linear->callback([&program, linear_options] {
    program.action = [&program, linear_options] { return BenchKernels(*linear_options, false, program.json); };
  });

  CLI::App* moe = verb->add_subcommand("moe", "One grouped expert matrix, or with --block a whole expert block");
  auto moe_options = std::make_shared<Options>();
  moe_options->shapes = "2048x1024,2880x2880";
  moe_options->tokens = "1,4,16,64,256,512";
  AddCommon(moe, *moe_options, program);
  AddKernelOptions(moe, *moe_options);
  moe->add_option("--experts", moe_options->experts, "Experts")->check(CLI::Range(1, 4096))->capture_default_str();
  moe->add_option("--top-k", moe_options->top_k, "Experts of one token")->check(CLI::Range(1, 4096))->capture_default_str();
  moe->add_flag("--block", moe_options->block, "The whole block: N rows of gate and up, SwiGLU, and K rows of down over N/2 columns");
  moe->add_flag("--zipf", moe_options->zipf, "GPU: experts are chosen with shares that fall like 1 / rank instead of evenly");
  moe->callback(
      [&program, moe_options] { program.action = [&program, moe_options] { return BenchKernels(*moe_options, true, program.json); }; });

  CLI::App* model = verb->add_subcommand("model", "Prefill (pp) and decode (tg) of a model, tokens per second");
  auto model_options = std::make_shared<Options>();
  AddCommon(model, *model_options, program);
  bench::ModelCase& model_case = model_options->model;
  CLI::Option* path = model->add_option("path", model_case.folder, "Model folder");
  CLI::Option* shape = model->add_option("--shape", model_case.shape, "Instead of a folder: random weights in the shape of this model")
                           ->check(CLI::IsMember(bench::ModelShapeNames()))
                           ->excludes(path);
  model->add_option("--layers", model_case.layers, "The first layers of the shape only; default all")
      ->check(CLI::Range(1, 4096))
      ->needs(shape)
      ->type_name("N");
  const auto add_scheme = [&](const char* name, std::string& scheme, const char* what) {
    model->add_option(name, scheme, what)->needs(shape)->capture_default_str()->type_name("SCHEME");
  };
  add_scheme("--scheme", model_case.scheme, "Weight scheme of the shape's experts, or of its dense layers");
  add_scheme("--attention", model_case.attention, "Weight scheme of the shape's q, k, v and o");
  add_scheme("--lm-head", model_case.lm_head, "Weight scheme of the shape's lm_head");
  model->add_option("--pp", model_case.pp, "Tokens of the prompt; 0 leaves the row out")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  model->add_option("--tg", model_case.tg, "Tokens generated one by one; 0 leaves the row out")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  model->add_option("--batch", model_options->batches, "Sequences that generate at once, a row for each number")
      ->capture_default_str()
      ->type_name("LIST");
  AddPanelCache(model, model_options->panel_cache)->excludes(shape);
  model->callback([&program, model_options] {
    if (model_options->model.folder.empty() && model_options->model.shape.empty())
      throw CLI::RequiredError("bench model needs a model folder or --shape NAME; one of them");
    program.action = [&program, model_options] { return BenchModels(*model_options, program.json); };
  });
}

}  // namespace billfish::cli
