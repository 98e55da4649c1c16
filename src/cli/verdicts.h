// How the answers of Explain() are shown.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "billfish/backend.h"
#include "cli/json.h"

namespace billfish::cli {

/// The kernel that would run: the first supported one; empty if there is none.
std::string_view ChosenKernel(const std::vector<Verdict>& verdicts);
/// [{kernel, supported, chosen, reason}], best first.
Json VerdictsJson(const std::vector<Verdict>& verdicts);
/// One paragraph per kernel: "runs", "could" or "no", its name and the reason.
std::string VerdictsText(const std::vector<Verdict>& verdicts, int indent = 2);

}  // namespace billfish::cli
