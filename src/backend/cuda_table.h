// The GPU rows of the kernel table: which kernels exist, and what each one takes.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "billfish/backend.h"
#include "billfish/cuda.h"

namespace billfish::backend {

enum class CudaFamily : uint8_t { kLinearDecode, kLinearTile, kGroupedDecode, kGroupedTile };

/// Most rows of a call that kLinearDecode takes: the rows of one pass over the weight. The tile kernel is faster from there on.
inline constexpr int64_t kDecodeRows = 16;

struct CudaRow {
  Verdict verdict;
  CudaFamily family;
};

/// The rows of problem.op in order of preference with their verdicts on `gpu`. `wanted` is empty or a kernel name; `environment` is the
/// value of BILLFISH_KERNEL, of which only names of GPU kernels concern these rows. The scheme of the problem is sound.
std::vector<CudaRow> JudgeCuda(const Problem& problem, const CudaDeviceInfo& gpu, std::string_view wanted, std::string_view environment);

/// The rows on problem.device, of which at least one is supported. Errors: a problem that means nothing, an unknown name, no such device,
/// kUnsupported with every refusal, one a line.
Result<std::vector<CudaRow>> CudaRowsFor(const Problem& problem, std::string_view wanted);

/// The rows of problem.op, each refused with `reason`.
std::vector<CudaRow> RefuseCuda(const Problem& problem, const std::string& reason);

/// Every name that a row can have; static storage.
std::span<const std::string_view> CudaKernelNames();

}  // namespace billfish::backend
