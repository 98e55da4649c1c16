// One row format for every benchmark, and the report that holds the rows together with the limits measured in the same run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billfish/cuda.h"
#include "billfish/cuda_baseline.h"
#include "billfish/limits.h"
#include "billfish/status.h"

namespace billfish::bench {

struct Row {
  std::string op;    ///< "linear", "grouped", "moe", "prefill", "decode"
  std::string name;  ///< shape or model: "4096x4096"
  std::string kernel;
  std::string scheme;      ///< "mxfp4", ...; of most bytes for a model
  std::string mode;        ///< "exact" or "fast"
  std::string activation;  ///< "BF16" or "F32"
  int64_t M = 0;           ///< tokens of one call
  int64_t N = 0, K = 0;    ///< of one expert; 0 for a model
  int64_t E = 1, top_k = 1;
  int threads = 0;
  int repetitions = 0;
  double median_us = 0;  ///< of one call
  double spread = 0;     ///< (third - first quartile) / median
  double gb_per_s = 0;   ///< stored weight bytes that a call must read / time
  double gflop_per_s = 0;
  double tokens_per_s = 0;
  std::string limit;       ///< what bounds the call: "read bandwidth", "bf16 dot", "int8 dot", "fp32 fma"; "read (in cache)" for
                           ///< a model that fits the caches, whose fraction may exceed 1
  double limit_value = 0;  ///< GB/s or GFLOP/s, for the bandwidth the median of the probes around the repetitions
  std::string baseline;    ///< what the same product was timed with in the same run: "cublasLt bf16", or empty
  double baseline_us = 0;  ///< its median; 0 without baseline
  double fraction = 0;     ///< median over repetitions of (time at the limit / time), each against its own probes
  /// Decode rows: the step timed part by part, as StepProfile tells them apart; 0 elsewhere. Their sum is no part of median_us, which
  /// also has the way of the token's id to the model and back.
  double weights_us = 0, attention_us = 0, other_us = 0;
};

struct Report {
  std::string version, commit, cpu, isa;
  std::string gpu;  ///< empty for rows of the CPU
  int threads = 0;
  Limits limits;           ///< of the CPU
  CudaLimits cuda_limits;  ///< of the GPU
  std::vector<Row> rows;
};

/// A report about this machine's CPU without rows yet; measures the limits.
Report NewReport(int threads);
/// The same about a GPU.
Result<Report> NewCudaReport(Device device);

nlohmann::ordered_json ToJson(const Report& report);
/// kNotFound, kIo, kCorruptFile (not JSON, or not such a report: names the field).
Result<Report> ReadReport(const std::filesystem::path& file);

/// The rows as aligned text with a line about machine and limits above.
std::string ToText(const Report& report);

}  // namespace billfish::bench
