// The billfish program: reads the command line, runs one verb, reports its outcome.
#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "billfish/version.h"
#include "cli/json.h"
#include "cli/print.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

int ExitCode(const Status& status) {
  switch (status.code()) {
    case ErrorCode::kInvalidArgument:
      return kExitUsage;
    case ErrorCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitFailure;
  }
}

int Report(const Status& status, bool json) {
  if (json) PrintJson(Json{{"error", {{"code", ErrorCodeName(status.code())}, {"message", status.message()}}}});
  Note("billfish: {}\n", status.message());
  return ExitCode(status);
}

/// Output that never reached its file is a failure, whatever the verb thought.
int FlushOutput(int exit_code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_code;
  Note("billfish: writing to standard output failed: {}\n", std::strerror(errno));
  return exit_code == kExitOk ? kExitFailure : exit_code;
}

bool IsVerb(const CLI::App& app, const std::string& name) {
  const auto verbs = app.get_subcommands([&](const CLI::App* verb) { return verb->get_name() == name; });
  return !verbs.empty();
}

int Run(int argc, char** argv) {
  Program program;
  program.app.require_subcommand(1);
  program.app.set_help_flag("-h,--help", "Show this help and exit");
  program.app.set_version_flag("--version", [] { return fmt::format("billfish {} ({})", Version().version, Version().commit); });
  program.app.footer(
      "Results go to standard output, progress and notes to standard error. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C.\n"
      "`billfish VERB --help` explains a verb with examples.\n"
      "Environment: BILLFISH_THREADS (default number of threads), BILLFISH_KERNEL (a kernel or tier: scalar, avx2, avx512, avx512bf16),\n"
      "BILLFISH_CACHE_DIR (compiled GPU kernels), BILLFISH_NVRTC (the compiler library or its folder), NO_COLOR, CI or TERM=dumb (no "
      "progress bars).");
  AddInspect(program);
  AddExplain(program);
  AddQuantize(program);
  AddDequantize(program);
  AddVerify(program);
  AddGenerate(program);
  AddChat(program);
  AddLogits(program);
  AddEval(program);
  AddBench(program);
  AddKernels(program);
  AddVersion(program);
  AddCompletions(program);

  if (argc > 1 && argv[1][0] != '-' && !IsVerb(program.app, argv[1])) {
    Note("billfish: there is no verb '{}'; `billfish --help` lists them\n", argv[1]);
    return kExitUsage;
  }
  try {
    program.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return FlushOutput(program.app.exit(error));  // help
    Note("billfish: {}\nTry `billfish --help` or `billfish VERB --help`.\n", error.what());
    return kExitUsage;
  }
  const Outcome outcome = program.action();
  return FlushOutput(outcome ? *outcome : Report(outcome.error(), program.json));
}

}  // namespace
}  // namespace billfish::cli

int main(int argc, char** argv) {
  // A reader that went away ends the program silently, even where the parent process ignored the signal.
  std::signal(SIGPIPE, SIG_DFL);
  return billfish::cli::Run(argc, argv);
}
