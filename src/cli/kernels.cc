// `billfish kernels`: which GPU kernels there are, which are compiled and kept; compiles them ahead of their first use; removes them.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "billfish/kernels.h"
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
  std::string arch, name;
  int threads = 0;
};

/// Of --arch; without it the machine's own GPUs, or everything where there is none.
Result<std::vector<std::string>> Targets(const std::string& arch) {
  std::vector<std::string> targets;
  if (arch.empty()) {
    auto native = GpuTargets("native");
    return native ? std::move(native) : GpuTargets("all");
  }
  for (const std::string& item : SplitList(arch)) {
    const auto some = GpuTargets(item);
    if (!some) return some.error();
    for (const std::string& target : *some) {
      if (std::find(targets.begin(), targets.end(), target) == targets.end()) targets.push_back(target);
    }
  }
  if (targets.empty())
    return Status(ErrorCode::kInvalidArgument, fmt::format("--arch '{}' names no target; give for example sm_90a", arch));
  return targets;
}

Json ToJson(const std::vector<GpuKernel>& kernels, const GpuKernelStore& store) {
  Json rows = Json::array();
  for (const GpuKernel& kernel : kernels) {
    Json row = {{"name", kernel.name}, {"configuration", kernel.configuration}, {"target", kernel.target}, {"kept", kernel.kept}};
    if (kernel.kept) row.update({{"bytes", kernel.bytes}, {"registers", kernel.registers}, {"spill_bytes", kernel.spill_bytes}});
    rows.push_back(std::move(row));
  }
  return {{"folder", store.folder}, {"bytes", store.bytes}, {"compiler", store.compiler}, {"kernels", rows}};
}

Outcome Show(const std::vector<GpuKernel>& kernels, bool json) {
  const auto store = GpuKernelFolder();
  if (!store) return store.error();
  if (json) {
    PrintJson(ToJson(kernels, *store));
    return kExitOk;
  }
  Table table({{"kernel"},
               {"configuration"},
               {"target"},
               {"kept"},
               {"registers", Table::Align::kRight},
               {"spills", Table::Align::kRight},
               {"size", Table::Align::kRight}});
  size_t kept = 0;
  for (const GpuKernel& kernel : kernels) {
    kept += kernel.kept ? 1 : 0;
    table.AddRow({kernel.name, kernel.configuration, kernel.target, kernel.kept ? "yes" : "no",
                  kernel.kept ? std::to_string(kernel.registers) : "", kernel.kept ? std::to_string(kernel.spill_bytes) : "",
                  kernel.kept ? FormatBytes(static_cast<double>(kernel.bytes)) : ""});
  }
  Print("{}\n{} of {} kernels are compiled and kept in {} ({} in all)\ncompiler  {}\n", table.ToString(), kept, kernels.size(),
        store->folder.empty() ? "no folder: HOME is not set" : store->folder, FormatBytes(static_cast<double>(store->bytes)),
        store->compiler);
  return kExitOk;
}

Outcome List(const Options& options, bool json) {
  const auto targets = Targets(options.arch);
  if (!targets) return targets.error();
  const auto kernels = ListGpuKernels(*targets, options.name);
  if (!kernels) return kernels.error();
  return Show(*kernels, json);
}

Outcome Build(const Options& options, bool json) {
  const auto targets = Targets(options.arch);
  if (!targets) return targets.error();
  CatchInterrupts();
  Result<std::vector<GpuKernel>> kernels = [&] {
    Progress progress("compiling", "kernels");
    return BuildGpuKernels(*targets, options.name, ThreadsOr(options.threads), [&](size_t done, size_t total, const GpuKernel& kernel) {
      progress.Update(static_cast<int64_t>(done), static_cast<int64_t>(total), kernel.name + " " + kernel.target);
      return !Interrupted();
    });
  }();
  if (!kernels) return kernels.error();
  return Show(*kernels, json);
}

Outcome Clear(bool json) {
  const auto removed = ClearGpuKernels();
  if (!removed) return removed.error();
  if (json) {
    PrintJson({{"removed", *removed}});
  } else {
    Print("removed {} compiled kernel{}\n", *removed, *removed == 1 ? "" : "s");
  }
  return kExitOk;
}

CLI::App* AddNested(Program& program, CLI::App* verb, const char* name, const char* purpose) {
  CLI::App* nested = verb->add_subcommand(name, purpose);
  nested->set_help_flag("-h,--help", "Show this help and exit");
  nested->add_flag("--json", program.json, "Print one JSON document on standard output and nothing else");
  return nested;
}

void AddSelection(CLI::App* nested, Options& options) {
  nested
      ->add_option("--arch", options.arch,
                   "Targets: sm_80 to sm_120a, native, all, or a list; without it native, or all where there is no GPU")
      ->type_name("LIST");
  nested->add_option("--name", options.name, "Only kernels whose name contains this")->type_name("TEXT");
}

}  // namespace

void AddKernels(Program& program) {
  CLI::App* verb = AddVerb(program, "kernels", "List the GPU kernels, compile them ahead of their first use, or remove them",
                           "  billfish kernels list\n"
                           "  billfish kernels build --arch sm_90a\n"
                           "  BILLFISH_CACHE_DIR=/opt/billfish/kernels billfish kernels build --arch sm_80,sm_90a\n"
                           "  billfish kernels clear\n"
                           "Compiling needs NVRTC but no GPU. Kernels are kept in BILLFISH_CACHE_DIR, else in the user's cache folder.");
  verb->require_subcommand(1);
  auto options = std::make_shared<Options>();
  CLI::App* list = AddNested(program, verb, "list", "Every kernel and whether it is compiled and kept");
  AddSelection(list, *options);
  list->callback([&program, options] { program.action = [&program, options] { return List(*options, program.json); }; });

  CLI::App* build = AddNested(program, verb, "build", "Compile what is not kept yet");
  AddSelection(build, *options);
  build->add_option("--threads", options->threads, "Compile this many at a time; 0 means the processors")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  build->callback([&program, options] { program.action = [&program, options] { return Build(*options, program.json); }; });

  CLI::App* clear = AddNested(program, verb, "clear", "Remove every compiled kernel, of other versions too");
  clear->callback([&program] { program.action = [&program] { return Clear(program.json); }; });
}

}  // namespace billfish::cli
