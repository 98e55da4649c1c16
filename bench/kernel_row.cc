#include "kernel_row.h"

#include <fmt/format.h>

namespace billfish::bench {

Row KernelRow(const KernelCase& kernel_case, const RunOptions& options, int64_t M, std::string_view kernel) {
  const bool gpu = options.device.kind == Device::Kind::kCuda, experts = kernel_case.E > 0;
  Row row;
  // On a GPU the experts are always timed as a whole block, and every kernel is exact.
  row.op = !experts ? "linear" : gpu || kernel_case.whole_block ? "moe" : "grouped";
  row.name = experts ? fmt::format("{}x{}x{} t{}{}", kernel_case.E, kernel_case.N, kernel_case.K, kernel_case.top_k,
                                   gpu && options.zipf ? " zipf" : "")
                     : fmt::format("{}x{}", kernel_case.N, kernel_case.K);
  row.kernel = kernel;
  row.scheme = kernel_case.scheme;
  row.mode = !gpu && options.mode == Mode::kFast ? "fast" : "exact";
  row.activation = DTypeName(options.activation);
  row.M = M, row.N = kernel_case.N, row.K = kernel_case.K;
  if (experts) row.E = kernel_case.E, row.top_k = kernel_case.top_k;
  if (!gpu) row.threads = options.threads;
  return row;
}

}  // namespace billfish::bench
