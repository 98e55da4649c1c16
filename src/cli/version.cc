#include "billfish/version.h"

#include <fmt/format.h>

#include "billfish/context.h"
#include "cli/json.h"
#include "cli/print.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

Outcome ShowVersion(const Program& program) {
  const VersionInfo info = Version();
  if (program.json) {
    PrintJson({{"version", info.version},
               {"commit", info.commit},
               {"compiler", info.compiler},
               {"build", info.build},
               {"cpu", CpuName()},
               {"isa", CpuIsa()},
               {"threads", DefaultThreads()}});
  } else {
    Print("billfish {} ({})\nbuilt with {}, {}\n{}, {} threads: {}\n", info.version, info.commit, info.compiler, info.build, CpuName(),
          DefaultThreads(), CpuIsa());
  }
  return kExitOk;
}

}  // namespace

void AddVersion(Program& program) {
  CLI::App* verb = AddVerb(program, "version", "Version, commit, compiler, and what this processor can do", "  billfish version --json");
  verb->callback([&program] { program.action = [&program] { return ShowVersion(program); }; });
}

}  // namespace billfish::cli
