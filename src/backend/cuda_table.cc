#include "backend/cuda_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "cuda/tile_form.h"

namespace billfish::backend {
namespace {

struct Family {
  CudaFamily family;
  Op op;
  std::array<std::string_view, 3> names;  // weights of 4, 8 and 16 bits
  bool few_rows;                          // kDecodeRows at most
  const char* purpose;
};

constexpr Family kFamilies[] = {
    {CudaFamily::kLinearDecode,
     Op::kLinear,
     {"w4a16_linear_decode_sm80", "w8a16_linear_decode_sm80", "w16a16_linear_decode_sm80"},
     true,
     "streams the weight once through shared memory at the memory's speed"},
    {CudaFamily::kLinearTile,
     Op::kLinear,
     {"w4a16_linear_tile_sm80", "w8a16_linear_tile_sm80", "w16a16_linear_tile_sm80"},
     false,
     "reuses each decoded weight for a tile of rows on mma.sync"},
    {CudaFamily::kGroupedDecode,
     Op::kGroupedLinear,
     {"w4a16_grouped_decode_sm80", "w8a16_grouped_decode_sm80", "w16a16_grouped_decode_sm80"},
     false,
     "streams each expert that has rows once, for calls with few rows an expert"},
    {CudaFamily::kGroupedTile,
     Op::kGroupedLinear,
     {"w4a16_grouped_tile_sm80", "w8a16_grouped_tile_sm80", "w16a16_grouped_tile_sm80"},
     false,
     "reuses each decoded weight for a tile of an expert's rows on mma.sync"},
};

std::string_view NameOf(const Family& family, int code_bits) { return family.names[code_bits == 4 ? 0 : code_bits == 8 ? 1 : 2]; }

// What every GPU kernel asks of device, scheme and dtype.
std::optional<std::string> Refusal(const Problem& problem, const CudaDeviceInfo& gpu) {
  if (gpu.major < 8) {
    return fmt::format("needs compute capability 8.0 (bf16 tensor cores, asynchronous copies) and {} has {}.{}; use the cpu device",
                       gpu.name, gpu.major, gpu.minor);
  }
  if (problem.act_order && problem.op == Op::kGroupedLinear) {
    return "gathers rows for many experts at once and act-order has another order of columns for each; use the cpu device";
  }
  if (problem.mode == Mode::kFast) return "keeps activations in 16 bits and fast mode rounds them to int8; use exact mode";
  const int64_t group = problem.scheme.group;
  const Result<cuda::TileLayout> layout = cuda::LayoutOf(problem.scheme, group == 0 ? 1 : (problem.K + group - 1) / group);
  if (!layout) return std::string(layout.error().message());
  if (const Status status = cuda::CheckActivation(*layout, problem.activation); !status.ok()) return std::string(status.message());
  return std::nullopt;
}

template <class Judge>
std::vector<CudaRow> RowsOf(const Problem& problem, const Judge& judge) {
  std::vector<CudaRow> rows;
  for (const Family& family : kFamilies) {
    if (family.op != problem.op) continue;
    CudaRow row{{NameOf(family, CodeBits(problem.scheme.codes)), false, ""}, family.family};
    judge(family, row.verdict);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace

std::vector<CudaRow> JudgeCuda(const Problem& problem, const CudaDeviceInfo& gpu, std::string_view wanted, std::string_view environment) {
  const std::span<const std::string_view> names = CudaKernelNames();
  const bool limited = std::find(names.begin(), names.end(), environment) != names.end();
  const std::optional<std::string> refusal = Refusal(problem, gpu);
  return RowsOf(problem, [&](const Family& family, Verdict& verdict) {
    if (!wanted.empty() && wanted != verdict.kernel) {
      verdict.reason = fmt::format("{} was insisted on; leave the kernel open to use this one", wanted);
    } else if (limited && environment != verdict.kernel) {
      verdict.reason = fmt::format("BILLFISH_KERNEL={} leaves it out; unset the variable to use it", environment);
    } else if (refusal) {
      verdict.reason = *refusal;
    } else if (family.few_rows && problem.M > kDecodeRows) {
      verdict.reason = fmt::format("takes calls of up to {} rows and the problem has {}", kDecodeRows, problem.M);
    } else {
      verdict.supported = true;
      verdict.reason =
          family.few_rows ? fmt::format("{}; calls of up to {} rows", family.purpose, kDecodeRows) : std::string(family.purpose);
    }
  });
}

std::vector<CudaRow> RefuseCuda(const Problem& problem, const std::string& reason) {
  return RowsOf(problem, [&](const Family&, Verdict& verdict) { verdict.reason = reason; });
}

std::span<const std::string_view> CudaKernelNames() {
  static const std::vector<std::string_view> names = [] {
    std::vector<std::string_view> all;
    for (const Family& family : kFamilies) all.insert(all.end(), family.names.begin(), family.names.end());
    return all;
  }();
  return names;
}

}  // namespace billfish::backend
