// `billfish explain`: which kernel would compute a problem on this machine, and why each other one would not.
#include <fmt/format.h>

#include <memory>

#include "billfish/backend.h"
#include "billfish/scheme.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/verb.h"
#include "cli/verdicts.h"

namespace billfish::cli {
namespace {

struct Options {
  std::string scheme = "mxfp4";
  int64_t n = 4096, k = 4096, experts = 0;
  bool act_order = false;
  std::string mode = "exact";
  std::string activation = "bf16";
  std::string device = "cpu";
  int64_t m = 0;
};

Outcome ExplainProblem(const Options& options, bool json) {
  const Result<QuantScheme> scheme = SchemeByName(options.scheme);
  if (!scheme) return scheme.error();
  Problem problem;
  problem.op = options.experts > 0 ? Op::kGroupedLinear : Op::kLinear;
  problem.scheme = *scheme;
  problem.activation = ParseActivations(options.activation);
  problem.device = ParseDevice(options.device);
  problem.M = options.m;
  problem.mode = options.mode == "fast" ? Mode::kFast : Mode::kExact;
  problem.E = options.experts > 0 ? options.experts : 1;
  problem.N = options.n;
  problem.K = options.k;
  problem.act_order = options.act_order;
  const std::vector<Verdict> verdicts = Explain(problem);
  if (json) {
    PrintJson({{"problem", problem.ToString()}, {"kernel", ChosenKernel(verdicts)}, {"verdicts", VerdictsJson(verdicts)}});
  } else {
    Print("{}\n{}", problem.ToString(), VerdictsText(verdicts));
  }
  return ChosenKernel(verdicts).empty() ? kExitFailure : kExitOk;
}

}  // namespace

void AddExplain(Program& program) {
  CLI::App* verb = AddVerb(program, "explain", "Which kernel would compute a problem here, and why each other one would not",
                           "  billfish explain --scheme nvfp4 --n 14336 --k 4096\n"
                           "  billfish explain --scheme int4-g128-asym --experts 32 --n 2048 --k 1024 --mode fast\n"
                           "Exit code 1 says that no kernel can compute it.");
  auto options = std::make_shared<Options>();
  std::string names;
  for (const std::string_view name : SchemeNames()) names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
  verb->add_option("--scheme", options->scheme, "Weight scheme: " + names)->capture_default_str()->type_name("NAME");
  verb->add_option("--n", options->n, "Rows of the weight, the layer's outputs")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str()
      ->type_name("N");
  verb->add_option("--k", options->k, "Columns of the weight, the layer's inputs")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str()
      ->type_name("K");
  verb->add_option("--experts", options->experts, "A grouped matrix with this many experts")->check(CLI::Range(1, 1 << 20))->type_name("E");
  verb->add_option("--activation,--activations", options->activation, "Precision of the activations")
      ->check(CLI::IsMember({"bf16", "f32", "f16"}))
      ->capture_default_str();
  verb->add_option("--mode", options->mode, "exact, or fast: activations rounded to int8")
      ->check(CLI::IsMember({"exact", "fast"}))
      ->capture_default_str();
  verb->add_option("--device", options->device, "cpu, cuda or cuda:N")->check(kDeviceName)->capture_default_str();
  verb->add_option("--m", options->m, "Rows of a call; some GPU kernels take few rows only")->check(CLI::Range(1, 1 << 30))->type_name("M");
  verb->add_flag("--act-order", options->act_order, "The weight's columns are permuted (GPTQ act-order)");
  verb->callback([&program, options] { program.action = [&program, options] { return ExplainProblem(*options, program.json); }; });
}

}  // namespace billfish::cli
