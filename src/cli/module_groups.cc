#include "cli/module_groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace billfish::cli {
namespace {

struct SplitName {
  std::vector<std::string> parts;  ///< between the dots, "*" in place of a number
  std::vector<long long> numbers;
  int expert_place = -1;  ///< which of `numbers` counts experts
};

bool IsNumber(const std::string& text) {
  return !text.empty() && text.size() <= 9 && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

SplitName Split(const std::string& name) {
  SplitName split;
  std::string part;
  for (const char c : name + ".") {
    if (c != '.') {
      part += c;
      continue;
    }
    if (IsNumber(part)) {
      if (!split.parts.empty() && split.parts.back() == "experts") split.expert_place = static_cast<int>(split.numbers.size());
      split.numbers.push_back(std::stoll(part));
      part = "*";
    }
    split.parts.push_back(part);
    part.clear();
  }
  return split;
}

/// {0,1,2,5} -> "0-2,5"; long lists end in "...".
std::string Ranges(const std::set<long long>& numbers) {
  std::string text;
  int shown = 0;
  for (auto it = numbers.begin(); it != numbers.end();) {
    const long long first = *it;
    long long last = first;
    for (++it; it != numbers.end() && *it == last + 1; ++it) last = *it;
    if (++shown > 4) return text + ",...";
    text += fmt::format("{}{}", text.empty() ? "" : ",", first);
    if (last > first) text += fmt::format("-{}", last);
  }
  return text;
}

}  // namespace

std::vector<ModuleGroup> GroupModules(const std::vector<ModuleInfo>& modules, bool all) {
  struct Builder {
    ModuleGroup group;
    SplitName split;
    std::vector<std::set<long long>> numbers;
  };
  std::vector<Builder> builders;
  std::map<std::string, size_t> index;
  for (const ModuleInfo& module : modules) {
    const SplitName split = Split(module.name);
    const std::string key = all ? module.name
                                : fmt::format("{}|{}|{}|{}x{}x{}|{}", fmt::join(split.parts, "."), module.format, module.scheme.Name(),
                                              module.E, module.N, module.K, module.act_order);
    const auto [place, is_new] = index.try_emplace(key, builders.size());
    if (is_new) builders.push_back({{"", module, {}, 0, 1, 0, 0}, split, std::vector<std::set<long long>>(split.numbers.size())});
    Builder& builder = builders[place->second];
    builder.group.members.push_back(module.name);
    builder.group.count += 1;
    builder.group.bytes += module.bytes;
    builder.group.weights += static_cast<double>(module.E) * static_cast<double>(module.N) * static_cast<double>(module.K);
    for (size_t i = 0; i < split.numbers.size(); ++i) builder.numbers[i].insert(split.numbers[i]);
  }
  std::vector<ModuleGroup> groups;
  for (Builder& builder : builders) {
    size_t number = 0;
    for (const std::string& part : builder.split.parts) {
      if (!builder.group.pattern.empty()) builder.group.pattern += ".";
      if (part != "*") {
        builder.group.pattern += part;
        continue;
      }
      const std::set<long long>& seen = builder.numbers[number];
      builder.group.pattern += seen.size() == 1 ? std::to_string(*seen.begin()) : "{" + Ranges(seen) + "}";
      if (static_cast<int>(number) == builder.split.expert_place) builder.group.experts = static_cast<int64_t>(seen.size());
      ++number;
    }
    groups.push_back(std::move(builder.group));
  }
  return groups;
}

}  // namespace billfish::cli
