// Backend: which kernel computes a problem on this machine, and why each other one does not.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/cuda.h"
#include "billfish/scheme.h"
#include "billfish/status.h"
#include "billfish/tensor.h"

namespace billfish {

enum class Op : uint8_t {
  kLinear,         ///< y[M,N] = x[M,K] . W[N,K]^T
  kGroupedLinear,  ///< the same with one W per expert and rows sorted by expert
};

/// What the arithmetic may do to the activations.
enum class Mode : uint8_t {
  kExact,  ///< activations keep their 16 or 32 bits; weights decode exactly; fp32 accumulation
  kFast,   ///< activations are rounded to int8 with one scale per 32 consecutive k; opt-in
};

struct Problem {
  Op op = Op::kLinear;
  QuantScheme scheme;
  DType activation = DType::kBF16;  ///< on a CPU kBF16 or kF32, on a GPU kBF16 or kF16
  Mode mode = Mode::kExact;
  Device device;
  int64_t E = 1, N = 0, K = 0;
  int64_t M = 0;           ///< rows of a call, where that is known: some GPU kernels take few rows only
  bool act_order = false;  ///< the weight has a perm
  /// "linear mxfp4 [4096, 4096], bf16 activations, exact, cpu" for messages.
  std::string ToString() const;
};

struct Verdict {
  std::string_view kernel;  ///< for example "w4a16_linear_avx512bf16"; static storage
  bool supported = false;
  std::string reason;  ///< one sentence, never empty: why it can run, or what was asked, what was found and what to do
};

/// One row per kernel in order of preference; the first supported row is what Create() picks.
/// The last row is the reference itself, for checking. BILLFISH_KERNEL limits the choice: a tier (reference, scalar, avx2, avx512,
/// avx512bf16) to kernels of that tier or lower, a kernel name to that kernel and the rows after it.
/// For a GPU the rows are the GPU kernels; a Linear there holds every supported one and takes by the rows of a call the first that
/// fits. Where no GPU is found every row says what is missing.
std::vector<Verdict> Explain(const Problem& problem);
/// The same for a GPU that is described rather than present. problem.device is ignored.
std::vector<Verdict> Explain(const Problem& problem, const CudaDeviceInfo& gpu);

}  // namespace billfish
