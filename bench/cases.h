// What `billfish bench` can time.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "billfish/backend.h"
#include "billfish/model.h"
#include "billfish/panel_store.h"
#include "billfish/scheme.h"
#include "row.h"

namespace billfish::bench {

struct KernelCase {
  int64_t N = 4096, K = 4096;
  int64_t E = 0, top_k = 0;  ///< 0 = a dense linear
  bool whole_block = false;  ///< a MoeLayer with H = K and 2 I = N instead of one grouped matrix
  std::string scheme;
};

struct RunOptions {
  DType activation = DType::kBF16;
  Mode mode = Mode::kExact;
  std::string kernel;
  int threads = 1;
  double budget_s = 0.5;  ///< of the CPU, for each row
  Device device;
  bool zipf = false;                  ///< BenchMoeCuda: experts are chosen with shares that fall like 1 / rank instead of evenly
  std::filesystem::path panel_cache;  ///< of a model, as in ModelOptions
  std::function<void(const PanelStore::Report&)> after_loading;  ///< what the cache did, before anything is timed; may be empty
};

/// A model folder, or a shape with random weights.
struct ModelCase {
  std::filesystem::path folder;
  std::string shape;                                                   ///< of ModelShapeNames(); empty = the folder
  int64_t layers = 0;                                                  ///< of the shape, the first of them; 0 = all
  std::string scheme = "mxfp4", attention = "bf16", lm_head = "bf16";  ///< of the shape: experts or dense MLP, q k v o, lm_head
  int64_t pp = 512, tg = 128;                                          ///< tokens of a prompt, and generated ones; 0 = not timed
  std::vector<int64_t> batches = {1};                                  ///< sequences that generate at once, a row each
  std::function<bool(const LoadProgress&)> progress;                   ///< of loading, as in ModelOptions
};

/// What can be said before anything is measured or loaded: kInvalidArgument where pp and tg are both 0 or batches are named without tg, and
/// the errors of ShapeConfig and SchemeByName.
Status CheckModelCase(const ModelCase& model_case);

/// Called with every finished row; false stops with kCancelled.
using RowSink = std::function<bool(const Row&)>;

/// One row per M, weights of the case packed once.
Status BenchLinear(const KernelCase& kernel_case, const std::vector<int64_t>& Ms, const RunOptions& options, const Limits& limits,
                   const RowSink& sink);
Status BenchMoe(const KernelCase& kernel_case, const std::vector<int64_t>& Ms, const RunOptions& options, const Limits& limits,
                const RowSink& sink);

/// The same on options.device, a GPU; a row of BenchLinearCuda has cuBLASLt beside it, a row of BenchMoeCuda is a whole block of
/// routing, gate and up, SwiGLU, down and combine.
Status BenchLinearCuda(const KernelCase& kernel_case, const std::vector<int64_t>& Ms, const RunOptions& options, const CudaLimits& limits,
                       const RowSink& sink);
Status BenchMoeCuda(const KernelCase& kernel_case, const std::vector<int64_t>& Ms, const RunOptions& options, const CudaLimits& limits,
                    const RowSink& sink);

/// "prefill" of pp tokens of one sequence, and for each batch "decode" of tg tokens of as many sequences, both from their beginning as
/// llama.cpp's pp and tg rows. A decode row is stated for one step, which makes M tokens. The tokens fed are made up: sequences differ.
Status BenchModel(const ModelCase& model_case, const RunOptions& options, const Limits& limits, const RowSink& sink);
/// The same on options.device, a GPU: the time on the host's clock from call to answer, greedy choice of the next tokens included.
Status BenchModelCuda(const ModelCase& model_case, const RunOptions& options, const CudaLimits& limits, const RowSink& sink);

}  // namespace billfish::bench
