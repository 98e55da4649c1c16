#include "cuda/jit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "core/status_macros.h"
#include "cuda/driver_api.h"
#include "cuda/embedded_sources.h"
#include "cuda/jit_key.h"
#include "cuda/kernel_cache.h"
#include "cuda/nvrtc.h"

namespace billfish::cuda {
namespace {

// Longer than any kernel takes to compile; whoever waits in vain compiles it too.
constexpr std::chrono::seconds kLockTimeout{120};

class Program {
 public:
  explicit Program(const NvrtcApi& api) : api_(api) {}
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (handle != nullptr) api_.DestroyProgram(&handle);
  }
  NvrtcProgram handle = nullptr;

 private:
  const NvrtcApi& api_;
};

Status CheckTarget(const NvrtcApi& nvrtc, Arch arch) {
  if (std::find(nvrtc.supported.begin(), nvrtc.supported.end(), arch.number()) != nvrtc.supported.end()) return OkStatus();
  return Status(ErrorCode::kUnsupported,
                fmt::format("a kernel was to be compiled for {}, but NVRTC {} ({}) supports {} to {} without it; install {} NVRTC",
                            arch.Target(), nvrtc.version(), nvrtc.path, nvrtc.supported.empty() ? 0 : nvrtc.supported.front(),
                            nvrtc.supported.empty() ? 0 : nvrtc.supported.back(),
                            !nvrtc.supported.empty() && arch.number() < nvrtc.supported.front() ? "an older" : "a newer"));
}

// The number in front of `unit` at its last appearance in the log, or 0: "Used 40 registers", "8 bytes spill stores".
int NumberBefore(std::string_view log, std::string_view unit) {
  const size_t at = log.rfind(unit);
  if (at == std::string_view::npos) return 0;
  size_t begin = at;
  while (begin > 0 && std::isdigit(static_cast<unsigned char>(log[begin - 1])) != 0) --begin;
  int number = 0;
  for (size_t i = begin; i < at; ++i) number = number * 10 + (log[i] - '0');
  return number;
}

// Everything that is there once the process has it; one mutex a kernel, so that two different ones compile side by side.
struct TableEntry {
  std::mutex mutex;
  std::optional<LoadedKernel> kernel;
  uint32_t shared_bytes = 0;
};

std::shared_ptr<TableEntry> FindEntry(const std::string& key) {
  static auto& mutex = *new std::mutex;
  static auto& table = *new std::map<std::string, std::shared_ptr<TableEntry>>;
  const std::lock_guard lock(mutex);
  std::shared_ptr<TableEntry>& entry = table[key];
  if (entry == nullptr) entry = std::make_shared<TableEntry>();
  return entry;
}

Result<LoadedKernel> LoadOnDevice(const KernelSpec& spec, const CompiledKernel& compiled) {
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  const std::string what = fmt::format("loading the kernel {}", spec.function);
  CUmodule module = nullptr;
  LoadedKernel kernel;
  kernel.name = spec.function;
  BILLFISH_RETURN_IF_ERROR(Check(api->ModuleLoadData(&module, compiled.cubin.data()), what.c_str()));
  BILLFISH_RETURN_IF_ERROR(Check(api->ModuleGetFunction(&kernel.function, module, spec.function.c_str()), what.c_str()));
  // All kernels divide an SM's cache alike, with as little as possible for what they do not copy to shared memory: an SM waits until it is
  // empty before it changes that, and kernels that follow each other shall overlap.
  constexpr int kAllShared = 100;
  BILLFISH_RETURN_IF_ERROR(Check(api->FuncSetAttribute(kernel.function, kFunctionSharedCarveout, kAllShared), what.c_str()));
  // Asking for an attribute makes the driver load the code now instead of at the first launch, which may be inside a graph capture.
  int local_bytes = 0;
  BILLFISH_RETURN_IF_ERROR(Check(api->FuncGetAttribute(&local_bytes, kFunctionLocalBytes, kernel.function), what.c_str()));
  return kernel;
}

Status RaiseSharedLimit(const KernelSpec& spec, CUfunction function, const GpuDevice& device) {
  if (spec.shared_bytes > device.info().shared_bytes) {
    return Status(ErrorCode::kUnsupported, fmt::format("the kernel {} needs {} bytes of shared memory a block, but {} has {}",
                                                       spec.function, spec.shared_bytes, device.info().name, device.info().shared_bytes));
  }
  BILLFISH_ASSIGN_OR_RETURN(const DriverApi* api, Driver());
  return Check(api->FuncSetAttribute(function, kFunctionMaxDynamicSharedBytes, static_cast<int>(spec.shared_bytes)),
               "raising a kernel's limit of shared memory");
}

}  // namespace

Result<CompiledKernel> CompileKernel(const KernelSpec& spec, Arch arch) {
  BILLFISH_ASSIGN_OR_RETURN(const NvrtcApi* nvrtc, Nvrtc());
  BILLFISH_RETURN_IF_ERROR(CheckTarget(*nvrtc, arch));
  const std::vector<EmbeddedSource> sources = SourcesOf(spec.file, EmbeddedSources());
  const std::string path = "cuda/kernels/" + spec.file;
  const auto source = std::find_if(sources.begin(), sources.end(), [&](const EmbeddedSource& s) { return path == s.name; });
  if (source == sources.end()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("the kernel {} was to be compiled from {}, which is not part of this library", spec.function, path));
  }
  std::vector<const char*> texts, names;
  for (const EmbeddedSource& header : sources) {
    texts.push_back(header.text);
    names.push_back(header.name);
  }
  Program program(*nvrtc);
  if (nvrtc->CreateProgram(&program.handle, source->text, spec.file.c_str(), static_cast<int>(texts.size()), texts.data(), names.data()) !=
      0) {
    return Status(ErrorCode::kCompile, fmt::format("the kernel {} was to be compiled, but NVRTC {} ({}) refused its source", spec.function,
                                                   nvrtc->version(), nvrtc->path));
  }
  std::vector<std::string> options = CompileOptions(spec, arch);
  // Where a driver is installed, NVRTC keeps what it compiled in a cache of its own and answers from it without the log, so registers and
  // spills would read as none.
  if (nvrtc->HasNoCacheOption()) options.emplace_back("--no-cache");
  std::vector<const char*> arguments;
  arguments.reserve(options.size());
  for (const std::string& option : options) arguments.push_back(option.c_str());
  const NvrtcResult result = nvrtc->CompileProgram(program.handle, static_cast<int>(arguments.size()), arguments.data());
  CompiledKernel kernel;
  size_t bytes = 0;
  if (nvrtc->GetLogSize(program.handle, &bytes) == 0 && bytes > 1) {
    kernel.log.resize(bytes);
    nvrtc->GetLog(program.handle, kernel.log.data());
    // Some versions end the log with more than one zero byte.
    while (!kernel.log.empty() && (kernel.log.back() == '\0' || kernel.log.back() == '\n')) kernel.log.pop_back();
  }
  if (result != 0 || nvrtc->GetCubinSize(program.handle, &bytes) != 0 || bytes == 0) {
    return Status(ErrorCode::kCompile, fmt::format("the kernel {} ({}) does not compile for {} with NVRTC {}, error {}:\n{}", spec.function,
                                                   fmt::join(options, " "), arch.Target(), nvrtc->version(), result, kernel.log));
  }
  kernel.cubin.resize(bytes);
  if (nvrtc->GetCubin(program.handle, reinterpret_cast<char*>(kernel.cubin.data())) != 0) {
    return Status(ErrorCode::kCompile, fmt::format("the kernel {} compiled for {}, but NVRTC {} does not hand it out", spec.function,
                                                   arch.Target(), nvrtc->version()));
  }
  ReadReport(kernel);
  return kernel;
}

void ReadReport(CompiledKernel& kernel) {
  kernel.registers = NumberBefore(kernel.log, " registers");
  kernel.spill_bytes = NumberBefore(kernel.log, " bytes spill stores") + NumberBefore(kernel.log, " bytes spill loads");
}

Status CheckHot(const KernelSpec& spec, const CompiledKernel& kernel) {
  if (!spec.hot) return OkStatus();
  if (kernel.spill_bytes != 0) {
    return Status(
        ErrorCode::kCompile,
        fmt::format("the kernel {} must stay in registers, but spills {} bytes (at {} registers); give it fewer values a thread:\n{}",
                    spec.function, kernel.spill_bytes, kernel.registers, kernel.log));
  }
  // The assembler's words for a setmaxnreg that it ignored and for wgmma that it serialised.
  for (const char* loss : {"Potential Performance Loss", "setmaxnreg ignored", "(C7508)", "(C7510)"}) {
    if (kernel.log.find(loss) != std::string::npos) {
      return Status(ErrorCode::kCompile,
                    fmt::format("the kernel {} must be fast, but its assembler reports:\n{}", spec.function, kernel.log));
    }
  }
  return OkStatus();
}

Result<CompiledKernel> CachedKernel(const KernelSpec& spec, Arch arch, const KernelCache* cache) {
  BILLFISH_ASSIGN_OR_RETURN(const NvrtcApi* nvrtc, Nvrtc());
  if (cache == nullptr) return CompileKernel(spec, arch);
  const std::string key = KernelKey(spec, arch, SourcesOf(spec.file, EmbeddedSources()), nvrtc->version());
  if (std::optional<CompiledKernel> kept = cache->Read(key)) return std::move(*kept);
  const KernelCache::Lock lock = cache->Acquire(key, kLockTimeout);
  if (std::optional<CompiledKernel> kept = cache->Read(key)) return std::move(*kept);
  BILLFISH_ASSIGN_OR_RETURN(CompiledKernel kernel, CompileKernel(spec, arch));
  // A folder that cannot be written costs the next process a compilation and is no error.
  const Status kept = cache->Write(key, kernel);
  static_cast<void>(kept);
  return kernel;
}

Result<LoadedKernel> LoadKernel(const KernelSpec& spec, const GpuDevice& device) {
  BILLFISH_RETURN_IF_ERROR(device.MakeCurrent());
  const auto entry = FindEntry(
      fmt::format("{}\n{}\n{}\n{}", device.info().index, spec.file, spec.function, fmt::join(CompileOptions(spec, device.arch()), "\n")));
  const std::lock_guard lock(entry->mutex);
  if (!entry->kernel.has_value()) {
    const std::optional<std::string> folder = KernelCache::DefaultFolder();
    const std::optional<KernelCache> cache = folder.has_value() ? std::optional<KernelCache>(std::in_place, *folder) : std::nullopt;
    BILLFISH_ASSIGN_OR_RETURN(const CompiledKernel compiled, CachedKernel(spec, device.arch(), cache.has_value() ? &*cache : nullptr));
    BILLFISH_ASSIGN_OR_RETURN(entry->kernel, LoadOnDevice(spec, compiled));
  }
  if (spec.shared_bytes > entry->shared_bytes) {
    BILLFISH_RETURN_IF_ERROR(RaiseSharedLimit(spec, entry->kernel->function, device));
    entry->shared_bytes = spec.shared_bytes;
  }
  return *entry->kernel;
}

}  // namespace billfish::cuda
