#include "cli/verb.h"

namespace billfish::cli {

CLI::App* AddVerb(Program& program, const std::string& name, const std::string& purpose, const std::string& examples) {
  CLI::App* verb = program.app.add_subcommand(name, purpose);
  verb->set_help_flag("-h,--help", "Show this help and exit");
  verb->add_flag("--json", program.json, "Print one JSON document on standard output and nothing else");
  verb->footer("Examples:\n" + examples);
  return verb;
}

}  // namespace billfish::cli
