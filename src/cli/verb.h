// What every verb is: a subcommand whose callback leaves an action for main() to run.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "billfish/status.h"

namespace billfish::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;        ///< the work failed
inline constexpr int kExitUsage = 2;          ///< the command line makes no sense
inline constexpr int kExitInterrupted = 130;  ///< Ctrl-C

/// The exit code of a verb that ran to its end, or why it could not. kInvalidArgument becomes kExitUsage, kCancelled
/// kExitInterrupted, anything else kExitFailure.
using Outcome = Result<int>;

struct Program {
  CLI::App app{"billfish: neural-network layers with 4-bit weights and 16-bit activations", "billfish"};
  bool json = false;  ///< --json was given: stdout carries one document and nothing else
  std::function<Outcome()> action;
};

/// A subcommand with --json, -h and the given examples (one a line) below its help.
CLI::App* AddVerb(Program& program, const std::string& name, const std::string& purpose, const std::string& examples);

void AddInspect(Program& program);
void AddExplain(Program& program);
void AddQuantize(Program& program);
void AddDequantize(Program& program);
void AddVerify(Program& program);
void AddGenerate(Program& program);
void AddChat(Program& program);
void AddLogits(Program& program);
void AddEval(Program& program);
void AddBench(Program& program);
void AddKernels(Program& program);
void AddVersion(Program& program);
void AddCompletions(Program& program);

}  // namespace billfish::cli
