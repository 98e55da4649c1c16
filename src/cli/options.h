// Flags that several verbs share, and how their text becomes values.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "billfish/backend.h"
#include "billfish/status.h"
#include "billfish/tensor.h"

namespace billfish::cli {

/// "cpu", "cuda", "cuda:1" -> Device. A CLI11 check; ParseDevice takes what it lets through.
extern const CLI::Validator kDeviceName;
Device ParseDevice(const std::string& text);
/// "bf16", "f16", "f32" -> DType.
DType ParseActivations(const std::string& text);

/// --threads, --kernel, --mode and --activations; --device where the verb has it.
struct Execution {
  int threads = 0;  ///< 0 = DefaultThreads()
  std::string kernel;
  std::string mode = "exact";
  std::string activations = "bf16";
  std::string panel_cache;  ///< a folder; where the verb has the flag
  std::string device = "cpu";

  int Threads() const;
  /// "2 threads" or "cuda:0".
  std::string Place() const;
  Mode ParsedMode() const;
  DType Activations() const;
};

void AddExecution(CLI::App* verb, Execution& execution);
/// --panel-cache.
CLI::Option* AddPanelCache(CLI::App* verb, std::string& folder);
void AddDevice(CLI::App* verb, Execution& execution);

/// `threads`, or DefaultThreads() for 0.
int ThreadsOr(int threads);
/// "1,4,16" -> {1, 4, 16}; every number from 1 to `limit`. kInvalidArgument names `flag` and the item that is wrong.
Result<std::vector<int64_t>> ParseCounts(const std::string& text, const std::string& flag, int64_t limit);
/// "a, b" -> {"a", "b"}; empty items are dropped.
std::vector<std::string> SplitList(const std::string& text);
/// "4096x14336,2048x1024" -> {{4096, 14336}, {2048, 1024}}.
struct Shape {
  int64_t N, K;
};
Result<std::vector<Shape>> ParseShapes(const std::string& text, const std::string& flag);
/// "500MB", "5GB", "1.5GiB", "1000000" -> bytes.
Result<int64_t> ParseSize(const std::string& text, const std::string& flag);

}  // namespace billfish::cli
