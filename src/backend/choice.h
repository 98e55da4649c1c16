// The joined kernel table, and which of its rows a request leaves open.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "billfish/backend.h"
#include "cpu/kernel_table.h"

namespace billfish::backend {

/// One row of the table for a problem. `cpu` is null for the reference.
struct Row {
  Verdict verdict;
  const cpu::CpuKernel* cpu = nullptr;
};

/// Every row in order of preference with its verdict. `layout` is the form the weight has or will have; `wanted` and `environment` (the
/// value of BILLFISH_KERNEL) narrow the choice: a tier keeps the kernels of that tier and lower, a kernel name given as `wanted` keeps
/// that row alone, and given by the environment keeps it and the rows after it. Precondition: both are empty or known.
std::vector<Row> Judge(const Problem& problem, const cpu::PanelLayout& layout, std::string_view wanted, std::string_view environment);

/// kInvalidArgument that lists the names if `name` is neither empty nor a tier nor a kernel. `origin` names where it came from.
Status CheckName(std::string_view name, std::string_view origin);

/// BILLFISH_KERNEL, or empty.
std::string_view EnvironmentKernel();

/// Ok if some code could compute the problem as it is described: scheme, shape, dtype.
Status CheckProblem(const Problem& problem);

}  // namespace billfish::backend
