#include "cli/verdicts.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/table.h"

namespace billfish::cli {

std::string_view ChosenKernel(const std::vector<Verdict>& verdicts) {
  const auto chosen = std::find_if(verdicts.begin(), verdicts.end(), [](const Verdict& verdict) { return verdict.supported; });
  return chosen == verdicts.end() ? std::string_view() : chosen->kernel;
}

Json VerdictsJson(const std::vector<Verdict>& verdicts) {
  const std::string_view chosen = ChosenKernel(verdicts);
  Json list = Json::array();
  for (const Verdict& verdict : verdicts) {
    list.push_back({{"kernel", verdict.kernel},
                    {"supported", verdict.supported},
                    {"chosen", verdict.supported && verdict.kernel == chosen},
                    {"reason", verdict.reason}});
  }
  return list;
}

std::string VerdictsText(const std::vector<Verdict>& verdicts, int indent) {
  const std::string_view chosen = ChosenKernel(verdicts);
  size_t name_width = 0;
  for (const Verdict& verdict : verdicts) name_width = std::max(name_width, verdict.kernel.size());
  const std::string margin(static_cast<size_t>(indent), ' ');
  std::string text;
  for (const Verdict& verdict : verdicts) {
    const char* answer = !verdict.supported ? "no" : verdict.kernel == chosen ? "runs" : "could";
    const std::string head = fmt::format("{}{:<5}  {:<{}}  ", margin, answer, verdict.kernel, name_width);
    text += head + Wrap(verdict.reason, std::max(40, 118 - static_cast<int>(head.size())), static_cast<int>(head.size())) + "\n";
  }
  if (chosen.empty()) text += margin + "no kernel of this build can compute it on this machine\n";
  return text;
}

}  // namespace billfish::cli
