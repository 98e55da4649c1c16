// `billfish completions`: shell completion scripts, written from the program's own flags so that they are never out of date.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cli/json.h"
#include "cli/print.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

struct Flag {
  std::vector<std::string> names;    ///< "--mode", "-n"
  std::vector<std::string> choices;  ///< values of an enumerated flag
  std::string help;
  bool takes_value = false;
};

struct VerbFlags {
  std::string name, help;
  std::vector<Flag> flags;         ///< those of its own subcommands too
  std::vector<std::string> words;  ///< its subcommands, or the values of an enumerated positional
};

/// CLI11 shows an enumerated flag's values as "TEXT:{a,b}" in its type.
std::vector<std::string> ChoicesOf(const std::string& type) {
  const size_t open = type.find(":{"), close = type.rfind('}');
  std::vector<std::string> choices;
  if (open == std::string::npos || close == std::string::npos) return choices;
  std::string item;
  for (const char c : type.substr(open + 2, close - open - 2) + ",") {
    if (c != ',') {
      item += c;
    } else if (!item.empty()) {
      choices.push_back(std::exchange(item, {}));
    }
  }
  return choices;
}

void AddFlags(const CLI::App& app, VerbFlags& verb) {
  for (const CLI::Option* option : app.get_options()) {
    Flag flag;
    for (const std::string& name : option->get_lnames()) flag.names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) flag.names.push_back("-" + name);
    flag.choices = ChoicesOf(option->get_type_name());
    if (flag.names.empty()) {  // a positional: shells complete paths themselves
      verb.words.insert(verb.words.end(), flag.choices.begin(), flag.choices.end());
      continue;
    }
    flag.takes_value = option->get_items_expected_max() > 0;
    flag.help = option->get_description();
    const bool known = std::any_of(verb.flags.begin(), verb.flags.end(), [&](const Flag& other) { return other.names == flag.names; });
    if (!known) verb.flags.push_back(std::move(flag));
  }
}

std::vector<VerbFlags> Describe(CLI::App& app) {
  const auto all = [](CLI::App*) { return true; };
  std::vector<VerbFlags> verbs;
  for (CLI::App* verb : app.get_subcommands(all)) {
    VerbFlags described{verb->get_name(), verb->get_description(), {}, {}};
    AddFlags(*verb, described);
    for (CLI::App* nested : verb->get_subcommands(all)) {
      described.words.push_back(nested->get_name());
      AddFlags(*nested, described);
    }
    verbs.push_back(std::move(described));
  }
  return verbs;
}

std::string Join(const std::vector<std::string>& items) { return fmt::format("{}", fmt::join(items, " ")); }

/// Text inside single quotes of a shell, and without the characters that zsh's _arguments gives a meaning.
std::string Plain(std::string text) {
  const auto special = [](char c) {
    return c == '\'' || c == '[' || c == ']' || c == ':' || c == '`' || c == '\\' || c == '"' || c == '\n';
  };
  std::replace_if(text.begin(), text.end(), special, ' ');
  return text;
}

std::string BashScript(const std::vector<VerbFlags>& verbs) {
  std::string names, cases;
  for (const VerbFlags& verb : verbs) {
    names += (names.empty() ? "" : " ") + verb.name;
    std::string flags, values;
    for (const Flag& flag : verb.flags) {
      flags += (flags.empty() ? "" : " ") + Join(flag.names);
      if (!flag.choices.empty()) {
        values += fmt::format("        {}) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")); return ;;\n", fmt::join(flag.names, "|"),
                              Join(flag.choices));
      } else if (flag.takes_value) {
        values += fmt::format("        {}) return ;;\n", fmt::join(flag.names, "|"));
      }
    }
    cases += fmt::format("    {})\n", verb.name);
    if (!values.empty()) cases += "      case \"$prev\" in\n" + values + "      esac\n";
    cases += fmt::format("      flags=\"{}\" words=\"{}\" ;;\n", flags, Join(verb.words));
  }
  return fmt::format(R"(# billfish completion for bash: source this file, or put it into ~/.local/share/bash-completion/completions/billfish
_billfish() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" flags="" words=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{}" -- "$cur"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{}  esac
  case "$cur" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
  esac
}}
complete -o default -F _billfish billfish
)",
                     names, cases);
}

std::string ZshScript(const std::vector<VerbFlags>& verbs) {
  std::string names, cases;
  for (const VerbFlags& verb : verbs) {
    names += fmt::format("    '{}:{}'\n", verb.name, Plain(verb.help));
    cases += fmt::format("    {})\n      _arguments", verb.name);
    for (const Flag& flag : verb.flags) {
      for (const std::string& name : flag.names) {
        const std::string value = !flag.takes_value      ? ""
                                  : flag.choices.empty() ? ":value:_files"
                                                         : fmt::format(":value:({})", Join(flag.choices));
        cases += fmt::format(" \\\n        '{}[{}]{}'", name, Plain(flag.help), value);
      }
    }
    cases += fmt::format(" \\\n        '*:path:{}' ;;\n", verb.words.empty() ? "_files" : "(" + Join(verb.words) + ")");
  }
  return fmt::format(R"(#compdef billfish
# billfish completion for zsh: put this file into a folder of $fpath as _billfish
_billfish() {{
  local -a verbs=(
{}  )
  if (( CURRENT == 2 )); then
    _describe 'verb' verbs
    return
  fi
  local verb=$words[2]
  shift words
  (( CURRENT-- ))
  case $verb in
{}  esac
}}
compdef _billfish billfish
)",
                     names, cases);
}

std::string FishScript(const std::vector<VerbFlags>& verbs) {
  std::string text = "# billfish completion for fish: put this file into ~/.config/fish/completions/billfish.fish\n";
  for (const VerbFlags& verb : verbs) {
    text += fmt::format("complete -c billfish -n __fish_use_subcommand -f -a {} -d '{}'\n", verb.name, Plain(verb.help));
    if (!verb.words.empty())
      text += fmt::format("complete -c billfish -n '__fish_seen_subcommand_from {}' -f -a '{}'\n", verb.name, Join(verb.words));
    for (const Flag& flag : verb.flags) {
      text += fmt::format("complete -c billfish -n '__fish_seen_subcommand_from {}'", verb.name);
      for (const std::string& name : flag.names) {
        text += name.rfind("--", 0) == 0 ? " -l " + name.substr(2) : (name.size() == 2 ? " -s " : " -o ") + name.substr(1);
      }
      if (!flag.choices.empty()) {
        text += fmt::format(" -x -a '{}'", Join(flag.choices));
      } else if (flag.takes_value) {
        text += " -r";
      }
      text += fmt::format(" -d '{}'\n", Plain(flag.help));
    }
  }
  return text;
}

Outcome PrintCompletions(Program& program, const std::string& shell) {
  const std::vector<VerbFlags> verbs = Describe(program.app);
  const std::string script = shell == "bash" ? BashScript(verbs) : shell == "zsh" ? ZshScript(verbs) : FishScript(verbs);
  if (program.json) {
    PrintJson({{"shell", shell}, {"script", script}});
  } else {
    Print("{}", script);
  }
  return kExitOk;
}

}  // namespace

void AddCompletions(Program& program) {
  CLI::App* verb =
      AddVerb(program, "completions", "Print a completion script for bash, zsh or fish", "  source <(billfish completions bash)");
  auto shell = std::make_shared<std::string>();
  verb->add_option("shell", *shell, "Which shell")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  verb->callback([&program, shell] { program.action = [&program, shell] { return PrintCompletions(program, *shell); }; });
}

}  // namespace billfish::cli
