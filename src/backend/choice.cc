#include "backend/choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <set>

#include "backend/cpu_kernel.h"
#include "backend/cuda_table.h"
#include "core/status_macros.h"
#include "cpu/isa.h"
#include "format/scheme_rules.h"

namespace billfish::backend {
namespace {

constexpr std::string_view kReferenceTier = "reference";
constexpr std::string_view kReferenceFamily = "linear_reference";
constexpr cpu::Tier kTiers[] = {cpu::Tier::kScalar, cpu::Tier::kAvx2, cpu::Tier::kAvx512, cpu::Tier::kAvx512Bf16};
constexpr int64_t kMostRows = int64_t{1} << 30;

std::string ReferenceName(int bits) { return fmt::format("w{}a32_{}", bits, kReferenceFamily); }

// Names outlive every verdict that points at them: all of them are made once.
std::string_view Static(const std::string& name) {
  static const std::set<std::string> names = [] {
    std::set<std::string> all;
    for (const cpu::Codes codes : {cpu::Codes::kInt4, cpu::Codes::kE4M3, cpu::Codes::kBF16, cpu::Codes::kF32}) {
      cpu::PanelLayout layout;
      layout.codes = codes;
      for (const cpu::CpuKernel& kernel : cpu::CpuKernels()) all.insert(kernel.Name(layout));
      all.insert(ReferenceName(cpu::CodeBitsOf(codes)));
    }
    return all;
  }();
  const auto found = names.find(name);
  return found == names.end() ? std::string_view() : std::string_view(*found);
}

// Rank of a tier: reference 0, scalar 1, ...; nothing for a name that is no tier.
std::optional<int> TierRank(std::string_view name) {
  if (name == kReferenceTier) return 0;
  for (const cpu::Tier tier : kTiers) {
    if (cpu::TierName(tier) == name) return static_cast<int>(tier) + 1;
  }
  return std::nullopt;
}

// "linear_avx2" of "w4a32_linear_avx2".
std::string_view Family(std::string_view kernel) {
  const size_t cut = kernel.find('_');
  return cut == std::string_view::npos ? kernel : kernel.substr(cut + 1);
}

// What the caller and the environment leave open.
class Limits {
 public:
  Limits(std::string_view wanted, std::string_view environment) : wanted_(wanted), environment_(environment) {}

  // A sentence if the row is closed. Rows are asked in table order.
  std::optional<std::string> Refuse(std::string_view name, int rank) {
    if (!wanted_.empty()) {
      const std::optional<int> cap = TierRank(wanted_);
      if (cap ? rank > *cap : name != wanted_) return fmt::format("{} was insisted on; leave the kernel open to use this one", wanted_);
    }
    if (environment_.empty()) return std::nullopt;
    const std::optional<int> cap = TierRank(environment_);
    reached_ |= !cap && Family(name) == Family(environment_);
    if (cap ? rank <= *cap : reached_) return std::nullopt;
    return fmt::format("BILLFISH_KERNEL={} leaves it out; unset the variable to use it", environment_);
  }

 private:
  std::string_view wanted_, environment_;
  bool reached_ = false;  // the kernel named by the environment, or a later one
};

std::string LowerName(DType dtype) {
  std::string name(DTypeName(dtype));
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

std::string_view EnvironmentKernel() { return cpu::ForcedKernel(); }

Status CheckName(std::string_view name, std::string_view origin) {
  const std::span<const std::string_view> cuda = CudaKernelNames();
  if (name.empty() || TierRank(name) || !Static(std::string(name)).empty()) return OkStatus();
  if (std::find(cuda.begin(), cuda.end(), name) != cuda.end()) return OkStatus();
  std::vector<std::string> known(1, std::string(kReferenceTier));
  for (const cpu::Tier tier : kTiers) known.emplace_back(cpu::TierName(tier));
  for (const cpu::Codes codes : {cpu::Codes::kInt4, cpu::Codes::kE4M3, cpu::Codes::kBF16, cpu::Codes::kF32}) {
    cpu::PanelLayout layout;
    layout.codes = codes;
    for (const cpu::CpuKernel& kernel : cpu::CpuKernels()) known.push_back(kernel.Name(layout));
    known.push_back(ReferenceName(cpu::CodeBitsOf(codes)));
  }
  known.insert(known.end(), cuda.begin(), cuda.end());
  return {ErrorCode::kInvalidArgument, fmt::format("{} asks for kernel \"{}\", which does not exist; use a tier or a kernel of: {}", origin,
                                                   name, fmt::join(known, ", "))};
}

Status CheckProblem(const Problem& problem) {
  BILLFISH_RETURN_IF_ERROR(format::CheckScheme(problem.scheme));
  if (const auto sizes = format::SizesOf(problem.scheme, problem.E, problem.N, problem.K); !sizes) return sizes.error();
  if (problem.N > kMostRows || problem.K > kMostRows || problem.E > kMostRows) {
    return {ErrorCode::kUnsupported,
            fmt::format("E = {}, N = {}, K = {}: one of them is above 2^30; cut the weight into parts", problem.E, problem.N, problem.K)};
  }
  if (problem.op == Op::kLinear && problem.E != 1) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("a linear has one weight and E = {} were given; use a grouped linear, or one expert of the stack", problem.E)};
  }
  const bool gpu = problem.device.kind == Device::Kind::kCuda;
  if (!gpu && problem.activation != DType::kBF16 && problem.activation != DType::kF32) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("activations are {}; kernels take BF16 or F32, convert them first", DTypeName(problem.activation))};
  }
  return OkStatus();
}

std::vector<Row> Judge(const Problem& problem, const cpu::PanelLayout& layout, std::string_view wanted, std::string_view environment) {
  const std::span<const std::string_view> cuda = CudaKernelNames();
  // The name of a GPU kernel says nothing about these rows.
  if (std::find(cuda.begin(), cuda.end(), environment) != cuda.end()) environment = {};
  Limits limits(wanted, environment);
  const cpu::Tier available = cpu::DetectCpu().tier;
  std::vector<Row> rows;
  for (const cpu::CpuKernel& kernel : cpu::CpuKernels()) {
    Row row{{Static(kernel.Name(layout)), false, ""}, &kernel};
    if (auto refusal = limits.Refuse(row.verdict.kernel, static_cast<int>(kernel.tier) + 1)) {
      row.verdict.reason = std::move(*refusal);
    } else {
      cpu::KernelVerdict verdict = kernel.Supports({layout, problem.activation, PrecisionOf(problem.mode)}, available);
      row.verdict.supported = verdict.supported;
      row.verdict.reason = std::move(verdict.reason);
    }
    rows.push_back(std::move(row));
  }
  Row reference{{Static(ReferenceName(CodeBits(problem.scheme.codes))), false, ""}, nullptr};
  if (auto refusal = limits.Refuse(reference.verdict.kernel, 0)) {
    reference.verdict.reason = std::move(*refusal);
  } else {
    reference.verdict.supported = true;
    reference.verdict.reason = "takes every scheme and shape, one row at a time with fp64 sums; meant for checking the others";
  }
  rows.push_back(std::move(reference));
  return rows;
}

}  // namespace billfish::backend

namespace billfish {

std::string Problem::ToString() const {
  const std::string shape = op == Op::kLinear ? fmt::format("linear {} [{}, {}]", scheme.Name(), N, K)
                                              : fmt::format("grouped linear {} [{}, {}, {}]", scheme.Name(), E, N, K);
  return fmt::format("{}{}, {} activations, {}, {}", shape, act_order ? " with act-order" : "", backend::LowerName(activation),
                     mode == Mode::kExact ? "exact" : "fast",
                     device.kind == Device::Kind::kCpu ? std::string("cpu") : fmt::format("cuda:{}", device.index));
}

}  // namespace billfish
