#include "backend/cpu_kernel.h"

#include <utility>

#include "core/status_macros.h"

namespace billfish::backend {
namespace {

class PanelKernel final : public Kernel {
 public:
  PanelKernel(std::string_view name, cpu::CpuWeight weight, std::vector<float> bias)
      : name_(name), weight_(std::move(weight)), bias_(std::move(bias)) {}

  // Second step because the linear points at the weight, which must not move any more.
  Status Bind(DType activation, Mode mode) {
    BILLFISH_ASSIGN_OR_RETURN(linear_, cpu::GroupedLinear::Create(&weight_, activation, PrecisionOf(mode), name_));
    return OkStatus();
  }

  std::string_view name() const override { return name_; }
  size_t bytes() const override { return weight_.bytes(); }
  const cpu::CpuWeight* panels() const override { return &weight_; }
  size_t WorkspaceBytes(int64_t rows, int threads) const override { return linear_.workspace_bytes(rows, threads); }

  Status Run(const Call& call) const override {
    return linear_.Run(call.x, {call.rows, call.offsets, call.source}, bias_.empty() ? nullptr : bias_.data(), call.y, call.workspace,
                       call.threads);
  }

 private:
  std::string_view name_;
  cpu::CpuWeight weight_;
  std::vector<float> bias_;
  cpu::GroupedLinear linear_;
};

}  // namespace

cpu::Precision PrecisionOf(Mode mode) { return mode == Mode::kFast ? cpu::Precision::kInt8 : cpu::Precision::kExact; }

Result<std::unique_ptr<Kernel>> MakeCpuKernel(std::string_view name, cpu::CpuWeight weight, std::vector<float> bias, DType activation,
                                              Mode mode) {
  auto kernel = std::make_unique<PanelKernel>(name, std::move(weight), std::move(bias));
  BILLFISH_RETURN_IF_ERROR(kernel->Bind(activation, mode));
  return std::unique_ptr<Kernel>(std::move(kernel));
}

}  // namespace billfish::backend
