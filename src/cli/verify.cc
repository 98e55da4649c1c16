// `billfish verify`: every matrix of a checkpoint, its kernel on its real weights against the definition in double precision.
//
// Definition: y = W x with W from PackedWeight::Dequantize and fp64 sums. Error of a matrix: ||y - y_ref|| / ||y_ref|| over kTokens random
// activations. Allowed: exact 1e-6 (the kernels' contract; sums of fp32 numbers in a few dozen chains stay below it up to K of 10^5),
// fast 1.05e-2 (int8 activations with a scale per 32, outlier channels included).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <span>

#include "billfish/checkpoint.h"
#include "billfish/cuda.h"
#include "billfish/linear.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/module_groups.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "cli/verb.h"

namespace billfish::cli {
namespace {

constexpr int64_t kTokens = 5;  // more than one register tile of the decode kernels, and a remainder
constexpr double kExactTolerance = 1e-6;
constexpr double kFastTolerance = 1.05e-2;

struct Options {
  std::string path;
  Execution execution;
  uint64_t seed = 1;
  double tolerance = 0;  ///< 0 = that of the mode

  double Allowed() const {
    if (tolerance > 0) return tolerance;
    return execution.ParsedMode() == Mode::kFast ? kFastTolerance : kExactTolerance;
  }
};

/// One matrix and one kernel.
struct Check {
  std::string module, scheme, kernel;
  int64_t E = 1, N = 0, K = 0;
  double error = 0;
  bool ok = false;
};

struct Activations {
  std::vector<std::byte> stored;
  std::vector<double> values;
};

Activations RandomActivations(int64_t count, DType dtype, std::mt19937_64& rng) {
  std::normal_distribution<float> normal;
  Activations x;
  const size_t size = dtype == DType::kBF16 ? 2 : 4;
  x.stored.resize(static_cast<size_t>(count) * size);
  for (int64_t i = 0; i < count; ++i) {
    float value = normal(rng);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (size == 2) bits &= 0xFFFF0000U;  // exactly a bf16 number
    std::memcpy(&value, &bits, 4);
    x.values.push_back(value);
    const uint32_t stored = size == 2 ? bits >> 16 : bits;
    std::memcpy(x.stored.data() + static_cast<size_t>(i) * size, &stored, size);
  }
  return x;
}

/// Squared norms of difference and definition, for rows [0, kTokens) of one expert.
struct Sums {
  double difference = 0, definition = 0;
};

void AddExpert(const std::vector<float>& w, int64_t N, int64_t K, const double* x, const float* y, Sums& sums) {
  for (int64_t m = 0; m < kTokens; ++m) {
    for (int64_t n = 0; n < N; ++n) {
      const double definition = std::transform_reduce(w.begin() + n * K, w.begin() + (n + 1) * K, x + m * K, 0.0, std::plus<>(),
                                                      [](float weight, double value) { return static_cast<double>(weight) * value; });
      const double difference = static_cast<double>(y[m * N + n]) - definition;
      sums.difference += difference * difference;
      sums.definition += definition * definition;
    }
  }
}

/// Device memory with the bytes of `host`.
Result<DeviceBuffer> OnDevice(Device device, std::span<const std::byte> host) {
  Result<DeviceBuffer> buffer = DeviceBuffer::Allocate(device, host.size());
  if (!buffer) return buffer.error();
  const auto count = static_cast<int64_t>(host.size());
  const Status status =
      CopyTensor(TensorView(buffer->data(), DType::kU8, {count}, device), ConstTensorView(host.data(), DType::kU8, {count}));
  if (!status.ok()) return status;
  return buffer;
}

/// y = the layer on x, wherever it runs; `name` receives its kernel.
Status Multiply(const PackedWeight& weight, const LinearOptions& options, int threads, std::span<const std::byte> x,
                std::span<const int64_t> offsets, std::span<float> y, std::string& name) {
  const bool gpu = options.device.kind == Device::Kind::kCuda;
  const int64_t rows = offsets.back(), N = weight.N(), K = weight.K();
  DeviceBuffer device_x, device_y, scratch;
  if (gpu) {
    for (const auto& [buffer, bytes] : {std::pair(&device_x, x), std::pair(&device_y, std::as_bytes(y))}) {
      Result<DeviceBuffer> made = OnDevice(options.device, bytes);
      if (!made) return made.error();
      *buffer = std::move(made).value();
    }
  }
  Workspace workspace;
  const auto reserve = [&](size_t bytes) -> Status {
    if (!gpu) return workspace.Reserve(bytes);
    Result<DeviceBuffer> made = DeviceBuffer::Allocate(options.device, std::max<size_t>(bytes, 256));
    if (!made) return made.error();
    scratch = std::move(made).value();
    workspace = Workspace(scratch.span());
    return {};
  };
  const ConstTensorView input(gpu ? device_x.data() : x.data(), options.activation, {rows, K}, options.device);
  const TensorView output(gpu ? static_cast<void*>(device_y.data()) : y.data(), DType::kF32, {rows, N}, options.device);
  ExecContext ctx{workspace, threads};
  Status status;
  if (weight.E() > 1) {
    const Result<GroupedLinear> layer = GroupedLinear::Create(weight, options);
    if (!layer) return layer.error();
    name = layer->kernel();
    status = reserve(layer->WorkspaceBytes(rows, rows));
    if (status.ok()) status = layer->Forward(input, offsets, {}, output, ctx);
  } else {
    const Result<Linear> layer = Linear::Create(weight, options);
    if (!layer) return layer.error();
    name = layer->kernel();
    status = reserve(layer->WorkspaceBytes(rows));
    if (status.ok()) status = layer->Forward(input, output, ctx);
  }
  if (!status.ok() || !gpu) return status;
  return CopyTensor(TensorView(y.data(), DType::kF32, {rows, N}), output);
}

/// The kernels to check: the one that runs on a CPU, every supported one on a GPU, where a layer takes them in turn.
std::vector<std::string> KernelsOf(const PackedWeight& weight, const LinearOptions& options) {
  if (options.device.kind == Device::Kind::kCpu || !options.kernel.empty()) return {options.kernel};
  Problem problem;
  problem.op = weight.E() > 1 ? Op::kGroupedLinear : Op::kLinear;
  problem.scheme = weight.scheme();
  problem.activation = options.activation;
  problem.mode = options.mode;
  problem.device = options.device;
  problem.E = weight.E(), problem.N = weight.N(), problem.K = weight.K();
  std::vector<std::string> kernels;
  for (const Verdict& verdict : Explain(problem)) {
    if (verdict.supported) kernels.emplace_back(verdict.kernel);
  }
  // None: let the layer say why.
  if (kernels.empty()) kernels.emplace_back();
  return kernels;
}

Status CheckModule(const Checkpoint& checkpoint, const Options& options, const std::string& module, std::vector<Check>& checks) {
  const Result<PackedWeight> weight = checkpoint.LoadWeight(module);
  if (!weight) return weight.error();
  const int64_t E = weight->E(), N = weight->N(), K = weight->K();
  const DType dtype = options.execution.Activations();
  std::mt19937_64 rng(options.seed);
  const Activations x = RandomActivations(E * kTokens * K, dtype, rng);
  // Every expert gets kTokens rows of its own.
  std::vector<int64_t> offsets(static_cast<size_t>(E) + 1);
  for (size_t e = 0; e < offsets.size(); ++e) offsets[e] = static_cast<int64_t>(e) * kTokens;
  LinearOptions linear_options;
  linear_options.activation = dtype;
  linear_options.mode = options.execution.ParsedMode();
  linear_options.device = ParseDevice(options.execution.device);
  linear_options.kernel = options.execution.kernel;

  for (const std::string& kernel : KernelsOf(*weight, linear_options)) {
    Check check;
    check.module = module;
    check.scheme = weight->scheme().Name();
    check.E = E, check.N = N, check.K = K;
    linear_options.kernel = kernel;
    std::vector<float> y(static_cast<size_t>(E * kTokens * N), NAN);
    Status status = Multiply(*weight, linear_options, options.execution.Threads(), x.stored, offsets, y, check.kernel);
    if (!status.ok()) return status;
    Sums sums;
    std::vector<float> plain(static_cast<size_t>(N * K));
    for (int64_t e = 0; e < E; ++e) {
      const Result<PackedWeight> expert = weight->Expert(e);
      if (!expert) return expert.error();
      status = expert->Dequantize(TensorView(plain.data(), DType::kF32, {N, K}));
      if (!status.ok()) return status;
      AddExpert(plain, N, K, x.values.data() + e * kTokens * K, y.data() + e * kTokens * N, sums);
    }
    check.error = sums.definition > 0 ? std::sqrt(sums.difference / sums.definition) : std::sqrt(sums.difference);
    check.ok = check.error <= options.Allowed();
    checks.push_back(std::move(check));
  }
  return {};
}

/// One line for each kind of module and kernel: how many, and the worst.
void PrintText(const std::vector<Check>& checks, const std::vector<ModuleGroup>& groups, const std::map<std::string, size_t>& group_of,
               double tolerance) {
  Table table({{"module"}, {"count", Table::Align::kRight}, {"scheme"}, {"kernel"}, {"worst error", Table::Align::kRight}, {"verdict"}});
  // Kernels in the order in which they appear.
  std::vector<std::string> kernels;
  for (const Check& check : checks) {
    if (std::find(kernels.begin(), kernels.end(), check.kernel) == kernels.end()) kernels.push_back(check.kernel);
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    for (const std::string& kernel : kernels) {
      const Check* worst = nullptr;
      int64_t failures = 0;
      for (const Check& check : checks) {
        if (group_of.at(check.module) != g || check.kernel != kernel) continue;
        failures += check.ok ? 0 : 1;
        // A NaN error is the worst of all.
        if (worst == nullptr || !(check.error <= worst->error)) worst = &check;
      }
      if (worst == nullptr) continue;
      table.AddRow({groups[g].pattern, std::to_string(groups[g].count), worst->scheme, kernel, fmt::format("{:.2e}", worst->error),
                    failures == 0 ? "ok" : fmt::format("{} WRONG, worst {}", failures, worst->module)});
    }
  }
  const auto failures = std::count_if(checks.begin(), checks.end(), [](const Check& check) { return !check.ok; });
  Print("{}\n{} of {} checks agree with the definition within {:.2e}\n", table.ToString(), static_cast<int64_t>(checks.size()) - failures,
        checks.size(), tolerance);
}

Json ToJson(const std::vector<Check>& checks, double tolerance) {
  Json modules = Json::array();
  bool ok = true;
  for (const Check& check : checks) {
    ok = ok && check.ok;
    modules.push_back({{"name", check.module},
                       {"scheme", check.scheme},
                       {"E", check.E},
                       {"N", check.N},
                       {"K", check.K},
                       {"kernel", check.kernel},
                       {"error", check.error},
                       {"ok", check.ok}});
  }
  return {{"ok", ok}, {"tolerance", tolerance}, {"tokens", kTokens}, {"modules", modules}};
}

Outcome Verify(const Options& options, bool json) {
  const Result<Checkpoint> checkpoint = Checkpoint::Open(options.path);
  if (!checkpoint) return checkpoint.error();
  const Result<std::vector<ModuleInfo>> modules = checkpoint->Modules();
  if (!modules) return modules.error();
  const std::vector<ModuleGroup> groups = GroupModules(*modules, false);
  std::map<std::string, size_t> group_of;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (const std::string& member : groups[g].members) group_of[member] = g;
  }
  CatchInterrupts();
  Progress progress("verify", "matrices");
  std::vector<Check> checks;
  int64_t done = 0;
  for (const ModuleInfo& module : *modules) {
    if (Status status = CheckModule(*checkpoint, options, module.name, checks); !status.ok()) return status.WithContext(module.name);
    progress.Update(++done, static_cast<int64_t>(modules->size()), module.name);
    if (Interrupted()) return Status(ErrorCode::kCancelled, fmt::format("interrupted after {} of {} matrices", done, modules->size()));
  }
  const double tolerance = options.Allowed();
  if (json) {
    PrintJson(ToJson(checks, tolerance));
  } else {
    PrintText(checks, groups, group_of, tolerance);
  }
  return std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.ok; }) ? kExitOk : kExitFailure;
}

}  // namespace

void AddVerify(Program& program) {
  CLI::App* verb = AddVerb(program, "verify", "Check every matrix's kernel against the definition, on its real weights",
                           "  billfish verify models/tiny-moe-mxfp4\n"
                           "  billfish verify model.safetensors --mode fast --json\n"
                           "  billfish verify models/tiny-moe-mxfp4 --device cuda\n"
                           "Exit code 1 says that at least one matrix is wrong.");
  auto options = std::make_shared<Options>();
  verb->add_option("path", options->path, "A Hugging Face folder or one .safetensors file")->required();
  verb->add_option("--seed", options->seed, "Of the random activations")->capture_default_str();
  verb->add_option("--tolerance", options->tolerance, "Largest relative error of a matrix; default 1e-6 exact, 1.05e-2 fast")
      ->check(CLI::PositiveNumber)
      ->type_name("X");
  AddExecution(verb, options->execution);
  AddDevice(verb, options->execution);
  verb->callback([&program, options] { program.action = [&program, options] { return Verify(*options, program.json); }; });
}

}  // namespace billfish::cli
