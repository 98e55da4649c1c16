// Kernel: a weight made ready for one implementation of the (grouped) linear, and the call it answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "billfish/backend.h"
#include "billfish/context.h"
#include "billfish/weight.h"

namespace billfish::cpu {
class CpuWeight;
}

namespace billfish::backend {

/// y[r,:] = W[e] . x[source ? source[r] : r, :] + bias[e] for r in [offsets[e], offsets[e+1]). Arguments are checked by the caller.
/// On a GPU x, y and workspace are device memory, offsets and source stay on the host, and the call is ordered on `stream`.
struct Call {
  ConstTensorView x;                 ///< [*, K], inner stride 1
  int64_t rows = 0;                  ///< rows of y
  std::span<const int32_t> offsets;  ///< E + 1, or empty: all rows belong to the only expert
  const int32_t* source = nullptr;   ///< [rows] or null
  TensorView y;                      ///< [>= rows, N], inner stride 1
  std::span<std::byte> workspace;    ///< at least WorkspaceBytes(rows, threads)
  int threads = 1;
  CudaStream stream = nullptr;
};

class Kernel {
 public:
  Kernel() = default;
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;
  virtual ~Kernel() = default;

  virtual std::string_view name() const = 0;  ///< static storage
  /// Allocates nothing; the result does not depend on threads.
  virtual Status Run(const Call& call) const = 0;
  virtual size_t WorkspaceBytes(int64_t rows, int threads) const = 0;
  virtual size_t bytes() const = 0;  ///< of the weight as this kernel holds it
  /// The weight where it has the form that a PanelStore keeps, else null.
  virtual const cpu::CpuWeight* panels() const { return nullptr; }
};

/// Chooses the first kernel that supports the problem (see Explain) and makes the weight ready for it. `wanted` is empty, a kernel name
/// to insist on, or a tier to stay within. `bias` is empty or [E,N]. The scheme, E, N, K and act_order of `problem` are those of the
/// weight. Errors: kInvalidArgument (a name that no kernel has), kUnsupported (every refusal, one a line), kOutOfMemory.
Result<std::unique_ptr<Kernel>> MakeKernel(const Problem& problem, const PackedWeight& weight, std::vector<float> bias,
                                           std::string_view wanted);

/// The same with panels made earlier from the weight that `problem` describes. kNotFound if the choice falls on a kernel that does not
/// read panels.
Result<std::unique_ptr<Kernel>> MakeKernelFromPanels(const Problem& problem, cpu::CpuWeight panels, std::vector<float> bias,
                                                     std::string_view wanted);

}  // namespace billfish::backend
