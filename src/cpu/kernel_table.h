// The CPU kernels as one table in preference order, and the only place that compares a kernel with a processor.
//
// Names follow <weights>a<activations>_<op>_<isa>: w4a16_linear_avx512bf16 multiplies 4-bit weights with 16-bit activations.
// "a16" keeps the products of a bf16 activation exact, "a32" those of an fp32 activation (and takes bf16 too), "a8" rounds activations
// to int8 with one scale per 32.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "billfish/status.h"
#include "billfish/tensor.h"
#include "cpu/isa.h"
#include "cpu/panel_job.h"

namespace billfish::cpu {

/// What may happen to activations before they are multiplied.
enum class Precision : uint8_t {
  kExact,  ///< nothing: bf16 stays bf16, fp32 stays fp32
  kBF16,   ///< fp32 may be rounded to bf16
  kInt8,   ///< may be quantised to int8, one scale per 32 k
};

struct CpuProblem {
  PanelLayout layout;
  DType x = DType::kBF16;  ///< kBF16 or kF32
  Precision precision = Precision::kExact;
};

/// `reason` is one line: why the kernel fits, or what was asked and what it needs.
struct KernelVerdict {
  bool supported;
  std::string reason;
};

struct CpuKernel {
  std::string_view family;  ///< "linear_avx512bf16"; Name() puts the weights and activations in front
  Tier tier;
  Staged staged;
  PanelFunction (*panel)(const PanelLayout&);  ///< null where the layout is not covered
  StageFunction stage;

  /// Name for a weight of this many bits, for example "w4a16_linear_avx512bf16".
  std::string Name(const PanelLayout& layout) const;
  KernelVerdict Supports(const CpuProblem& problem, Tier available) const;
};

/// Preference order; the scalar kernels, which take every problem, come last.
std::span<const CpuKernel> CpuKernels();

/// The first kernel that supports the problem. `forced` is a kernel or tier name, empty for none: a tier name caps the tier, a kernel
/// name leaves only that kernel. kUnsupported lists every refusal, one a line.
Result<const CpuKernel*> ChooseKernel(const CpuProblem& problem, std::string_view forced = {});

/// The value of BILLFISH_KERNEL, or empty.
std::string_view ForcedKernel();

}  // namespace billfish::cpu
