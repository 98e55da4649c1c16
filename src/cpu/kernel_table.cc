#include "cpu/kernel_table.h"

#include <array>
#include <cstdlib>

#include "cpu/kernels/scalar/kernels.h"
#include "cpu/stage.h"
#if defined(__x86_64__)
#include "cpu/kernels/avx2/kernels.h"
#include "cpu/kernels/avx512/kernels.h"
#include "cpu/kernels/avx512bf16/kernels.h"
#endif

namespace billfish::cpu {
namespace {

constexpr CpuKernel kKernels[] = {
#if defined(__x86_64__)
    {"linear_avx512vnni", Tier::kAvx512Bf16, Staged::kInt8, &avx512bf16::LinearPanelInt8, &avx512bf16::StageInt8},
    {"linear_avx512bf16", Tier::kAvx512Bf16, Staged::kBF16, &avx512bf16::LinearPanel, &StageBF16},
    {"linear_avx512", Tier::kAvx512, Staged::kF32, &avx512::LinearPanel, &StageF32},
    {"linear_avx2", Tier::kAvx2, Staged::kF32, &avx2::LinearPanel, &StageF32},
#endif
    {"linear_scalar", Tier::kScalar, Staged::kF32, &scalar::LinearPanel, &StageF32},
};

std::string_view ActivationName(Staged staged) { return staged == Staged::kF32 ? "a32" : staged == Staged::kBF16 ? "a16" : "a8"; }

std::string_view CodesName(Codes codes) {
  switch (codes) {
    case Codes::kInt4:
      return "int4";
    case Codes::kInt4Zero:
      return "int4 with zero points";
    case Codes::kE2M1:
      return "E2M1";
    case Codes::kE4M3:
      return "E4M3";
    case Codes::kBF16:
      return "bf16";
    case Codes::kF16:
      return "fp16";
    case Codes::kF32:
      return "fp32";
  }
  return "";
}

}  // namespace

std::string CpuKernel::Name(const PanelLayout& layout) const {
  std::string name = "w" + std::to_string(CodeBitsOf(layout.codes));
  return name.append(ActivationName(staged)).append("_").append(family);
}

KernelVerdict CpuKernel::Supports(const CpuProblem& problem, Tier available) const {
  const std::string codes(CodesName(problem.layout.codes));
  if (tier > available) {
    return {false, "needs " + std::string(TierName(tier)) + ", this process may use " + std::string(TierName(available))};
  }
  if (staged == Staged::kInt8 && problem.precision != Precision::kInt8) {
    return {false, "rounds activations to int8, which was not asked for"};
  }
  if (staged == Staged::kBF16 && problem.x == DType::kF32 && problem.precision == Precision::kExact) {
    return {false, "would round fp32 activations to bf16, and exact products were asked for"};
  }
  if (panel(problem.layout) == nullptr) {
    return {false, "has no form for " + codes + " weights with chunks of " + std::to_string(problem.layout.chunk_k) + " and these scales"};
  }
  switch (staged) {
    case Staged::kInt8:
      return {true, codes + " weights times int8 activations, one activation scale per 32 k"};
    case Staged::kBF16:
      return {true, codes + " weights times bf16 activations, exact products, fp32 sums"};
    case Staged::kF32:
      return {true, codes + " weights times fp32 activations, fp32 sums"};
  }
  return {false, ""};
}

std::span<const CpuKernel> CpuKernels() { return kKernels; }

Result<const CpuKernel*> ChooseKernel(const CpuProblem& problem, std::string_view forced) {
  Tier available = DetectCpu().tier;
  for (const Tier tier : {Tier::kScalar, Tier::kAvx2, Tier::kAvx512, Tier::kAvx512Bf16}) {
    if (forced == TierName(tier)) {
      if (tier < available) available = tier;
      forced = {};
    }
  }
  std::string refusals;
  for (const CpuKernel& kernel : kKernels) {
    const std::string name = kernel.Name(problem.layout);
    if (!forced.empty() && forced != name) continue;
    const KernelVerdict verdict = kernel.Supports(problem, available);
    if (verdict.supported) return &kernel;
    refusals += "\n  " + name + ": " + verdict.reason;
  }
  if (refusals.empty()) refusals = "\n  " + std::string(forced) + ": no CPU kernel or tier has this name for this weight";
  return Status(ErrorCode::kUnsupported, "no CPU kernel takes this problem:" + refusals);
}

std::string_view ForcedKernel() {
  const char* value = std::getenv("BILLFISH_KERNEL");
  return value == nullptr ? std::string_view() : std::string_view(value);
}

}  // namespace billfish::cpu
