#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "backend/choice.h"
#include "backend/cpu_kernel.h"
#include "backend/cuda_grouped.h"
#include "backend/cuda_linear.h"
#include "backend/cuda_table.h"
#include "backend/kernel.h"
#include "backend/reference_kernel.h"
#include "billfish/context.h"
#include "core/status_macros.h"
#include "cpu/pack_panel.h"
#include "cuda/device.h"
#include "format/scheme_rules.h"

namespace billfish {
namespace backend {
namespace {

cpu::PanelLayout ExpectedLayout(const Problem& problem) {
  return cpu::LayoutOf(format::Canonical(problem.scheme), problem.E, problem.N, problem.K);
}

const Row* FirstSupported(const std::vector<Row>& rows) {
  const auto found = std::find_if(rows.begin(), rows.end(), [](const Row& row) { return row.verdict.supported; });
  return found == rows.end() ? nullptr : &*found;
}

template <class SomeRow>
Status AllRefusals(const Problem& problem, const std::vector<SomeRow>& rows) {
  std::string message = fmt::format("no kernel computes {}:", problem.ToString());
  for (const SomeRow& row : rows) message += fmt::format("\n  {}: {}", row.verdict.kernel, row.verdict.reason);
  return {ErrorCode::kUnsupported, std::move(message)};
}

std::vector<Verdict> VerdictsOf(std::vector<CudaRow> rows) {
  std::vector<Verdict> verdicts;
  verdicts.reserve(rows.size());
  for (CudaRow& row : rows) verdicts.push_back(std::move(row.verdict));
  return verdicts;
}

}  // namespace

Result<std::vector<CudaRow>> CudaRowsFor(const Problem& problem, std::string_view wanted) {
  BILLFISH_RETURN_IF_ERROR(CheckProblem(problem).WithContext(problem.ToString()));
  BILLFISH_RETURN_IF_ERROR(CheckName(wanted, "the kernel option"));
  BILLFISH_RETURN_IF_ERROR(CheckName(EnvironmentKernel(), "BILLFISH_KERNEL"));
  BILLFISH_ASSIGN_OR_RETURN(const cuda::GpuDevice* gpu, cuda::GpuDevice::Get(problem.device.index));
  std::vector<CudaRow> rows = JudgeCuda(problem, gpu->info(), wanted, EnvironmentKernel());
  if (std::none_of(rows.begin(), rows.end(), [](const CudaRow& row) { return row.verdict.supported; })) return AllRefusals(problem, rows);
  return rows;
}

Result<std::unique_ptr<Kernel>> MakeKernel(const Problem& problem, const PackedWeight& weight, std::vector<float> bias,
                                           std::string_view wanted) {
  if (problem.device.kind == Device::Kind::kCuda) {
    BILLFISH_ASSIGN_OR_RETURN(const std::vector<CudaRow> rows, CudaRowsFor(problem, wanted));
    return (problem.op == Op::kLinear ? MakeCudaLinear : MakeCudaGrouped)(problem, rows, weight, bias);
  }
  BILLFISH_RETURN_IF_ERROR(CheckProblem(problem).WithContext(problem.ToString()));
  BILLFISH_RETURN_IF_ERROR(CheckName(wanted, "the kernel option"));
  BILLFISH_RETURN_IF_ERROR(CheckName(EnvironmentKernel(), "BILLFISH_KERNEL"));
  std::vector<Row> rows = Judge(problem, ExpectedLayout(problem), wanted, EnvironmentKernel());
  const Row* row = FirstSupported(rows);
  if (row == nullptr) return AllRefusals(problem, rows);
  if (row->cpu == nullptr) return MakeReferenceKernel(row->verdict.kernel, weight, std::move(bias));

  BILLFISH_ASSIGN_OR_RETURN(cpu::CpuWeight packed, cpu::CpuWeight::Pack(weight, DefaultThreads()));
  // Packing may have found numbers that need a wider form of the scales than the scheme promised.
  rows = Judge(problem, packed.layout(), wanted, EnvironmentKernel());
  row = FirstSupported(rows);
  if (row == nullptr) return AllRefusals(problem, rows);
  if (row->cpu == nullptr) return MakeReferenceKernel(row->verdict.kernel, weight, std::move(bias));
  return MakeCpuKernel(row->verdict.kernel, std::move(packed), std::move(bias), problem.activation, problem.mode);
}

Result<std::unique_ptr<Kernel>> MakeKernelFromPanels(const Problem& problem, cpu::CpuWeight panels, std::vector<float> bias,
                                                     std::string_view wanted) {
  BILLFISH_RETURN_IF_ERROR(CheckProblem(problem).WithContext(problem.ToString()));
  BILLFISH_RETURN_IF_ERROR(CheckName(wanted, "the kernel option"));
  BILLFISH_RETURN_IF_ERROR(CheckName(EnvironmentKernel(), "BILLFISH_KERNEL"));
  const std::vector<Row> rows = Judge(problem, panels.layout(), wanted, EnvironmentKernel());
  const Row* row = FirstSupported(rows);
  if (row == nullptr) return AllRefusals(problem, rows);
  if (row->cpu == nullptr) return Status(ErrorCode::kNotFound, fmt::format("{} does not read panels", row->verdict.kernel));
  return MakeCpuKernel(row->verdict.kernel, std::move(panels), std::move(bias), problem.activation, problem.mode);
}

}  // namespace backend

std::vector<Verdict> Explain(const Problem& problem, const CudaDeviceInfo& gpu) {
  Problem on_gpu = problem;
  on_gpu.device = {Device::Kind::kCuda, gpu.index};
  Status refusal = backend::CheckProblem(on_gpu);
  if (refusal.ok()) refusal = backend::CheckName(backend::EnvironmentKernel(), "BILLFISH_KERNEL");
  if (!refusal.ok()) return backend::VerdictsOf(backend::RefuseCuda(on_gpu, std::string(refusal.message())));
  return backend::VerdictsOf(backend::JudgeCuda(on_gpu, gpu, {}, backend::EnvironmentKernel()));
}

std::vector<Verdict> Explain(const Problem& problem) {
  if (problem.device.kind == Device::Kind::kCuda) {
    const Result<const cuda::GpuDevice*> gpu = cuda::GpuDevice::Get(problem.device.index);
    if (!gpu) return backend::VerdictsOf(backend::RefuseCuda(problem, std::string(gpu.error().message())));
    return Explain(problem, (*gpu)->info());
  }
  Status refusal = backend::CheckProblem(problem);
  if (refusal.ok()) refusal = backend::CheckName(backend::EnvironmentKernel(), "BILLFISH_KERNEL");
  // A problem that means nothing has no layout; any will do to list the names.
  const bool sound = format::CheckScheme(problem.scheme).ok() && format::SizesOf(problem.scheme, problem.E, problem.N, problem.K).ok();
  const cpu::PanelLayout layout = sound ? backend::ExpectedLayout(problem) : cpu::PanelLayout{};
  std::vector<Verdict> verdicts;
  for (backend::Row& row : backend::Judge(problem, layout, {}, refusal.ok() ? backend::EnvironmentKernel() : std::string_view())) {
    if (!refusal.ok()) {
      row.verdict.supported = false;
      row.verdict.reason = refusal.message();
    }
    verdicts.push_back(std::move(row.verdict));
  }
  return verdicts;
}

}  // namespace billfish
