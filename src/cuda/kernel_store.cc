// The public list of kernels and their compilation ahead of time.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <thread>

#include "billfish/cuda.h"
#include "billfish/kernels.h"
#include "core/status_macros.h"
#include "cuda/embedded_sources.h"
#include "cuda/jit_key.h"
#include "cuda/kernel_cache.h"
#include "cuda/kernel_list.h"
#include "cuda/nvrtc.h"

namespace billfish {
namespace {

using cuda::Arch;
using cuda::KernelCache;
using cuda::KernelSpec;

Result<Arch> ArchOf(std::string_view text) {
  for (const Arch arch : cuda::AllArchs()) {
    const std::string plain = fmt::format("{}", arch.number());
    for (const std::string& spelling : {arch.Target(), "sm_" + plain, plain, fmt::format("{}.{}", arch.major, arch.minor)}) {
      if (text == spelling) return arch;
    }
  }
  std::string known;
  for (const Arch arch : cuda::AllArchs()) known += fmt::format("{}, ", arch.Target());
  return Status(
      ErrorCode::kInvalidArgument,
      fmt::format("GPU kernels were asked for the target '{}', which billfish does not have; it has {}'native' (this machine's GPUs) "
                  "and 'all'",
                  text, known));
}

Result<KernelCache> Cache() {
  const std::optional<std::string> folder = KernelCache::DefaultFolder();
  if (folder.has_value()) return KernelCache(*folder);
  return Status(
      ErrorCode::kNotFound,
      "compiled GPU kernels are kept in BILLFISH_CACHE_DIR, XDG_CACHE_HOME/billfish or HOME/.cache/billfish, but none of the three "
      "variables is set; set one");
}

GpuKernel Describe(const KernelSpec& spec, Arch arch) {
  GpuKernel kernel;
  kernel.name = spec.function;
  for (const auto& [name, value] : spec.defines)
    kernel.configuration += fmt::format("{}{}={}", kernel.configuration.empty() ? "" : " ", name, value);
  kernel.target = arch.Target();
  return kernel;
}

void Fill(GpuKernel& kernel, const cuda::CompiledKernel& compiled) {
  kernel.kept = true;
  kernel.bytes = compiled.cubin.size();
  kernel.registers = compiled.registers;
  kernel.spill_bytes = compiled.spill_bytes;
}

struct Job {
  KernelSpec spec;
  Arch arch;
};

Result<std::vector<Job>> Jobs(const std::vector<std::string>& targets, std::string_view name) {
  std::vector<Job> jobs;
  for (const std::string& target : targets) {
    BILLFISH_ASSIGN_OR_RETURN(const Arch arch, ArchOf(target));
    for (KernelSpec& spec : cuda::AllKernelSpecs(arch)) {
      if (spec.function.find(name) != std::string::npos) jobs.push_back({std::move(spec), arch});
    }
  }
  if (jobs.empty()) {
    return Status(
        ErrorCode::kNotFound,
        fmt::format("GPU kernels with '{}' in their name were asked for, but there are none; `billfish kernels list` shows all", name));
  }
  return jobs;
}

// Compiles unless kept. A folder that cannot be written is an error here: filling it is the purpose.
Status Build(const Job& job, const KernelCache& cache, const std::string& compiler_version, GpuKernel& kernel) {
  const std::string key = cuda::KernelKey(job.spec, job.arch, cuda::SourcesOf(job.spec.file, cuda::EmbeddedSources()), compiler_version);
  std::optional<cuda::CompiledKernel> kept = cache.Read(key);
  if (!kept.has_value()) {
    BILLFISH_ASSIGN_OR_RETURN(kept, cuda::CompileKernel(job.spec, job.arch));
    BILLFISH_RETURN_IF_ERROR(cache.Write(key, *kept));
  }
  Fill(kernel, *kept);
  return OkStatus();
}

}  // namespace

Result<std::vector<std::string>> GpuTargets(std::string_view text) {
  std::vector<std::string> targets;
  if (text == "all") {
    for (const Arch arch : cuda::AllArchs()) targets.push_back(arch.Target());
  } else if (text == "native") {
    BILLFISH_ASSIGN_OR_RETURN(const std::vector<CudaDeviceInfo> devices, CudaDevices());
    for (const CudaDeviceInfo& device : devices) {
      const std::string target = Arch{device.major, device.minor}.Target();
      if (std::find(targets.begin(), targets.end(), target) == targets.end()) targets.push_back(target);
    }
  } else {
    BILLFISH_ASSIGN_OR_RETURN(const Arch arch, ArchOf(text));
    targets.push_back(arch.Target());
  }
  return targets;
}

Result<GpuKernelStore> GpuKernelFolder() {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::NvrtcApi* nvrtc, cuda::Nvrtc());
  GpuKernelStore store;
  store.compiler = fmt::format("NVRTC {} ({})", nvrtc->version(), nvrtc->path);
  if (const auto folder = KernelCache::DefaultFolder(); folder.has_value()) {
    store.folder = *folder;
    store.bytes = KernelCache(*folder).TotalBytes();
  }
  return store;
}

Result<std::vector<GpuKernel>> ListGpuKernels(const std::vector<std::string>& targets, std::string_view name) {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::NvrtcApi* nvrtc, cuda::Nvrtc());
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Job> jobs, Jobs(targets, name));
  const auto cache = Cache();
  std::vector<GpuKernel> kernels;
  for (const Job& job : jobs) {
    GpuKernel& kernel = kernels.emplace_back(Describe(job.spec, job.arch));
    if (!cache.ok()) continue;
    const auto kept =
        cache.value().Read(cuda::KernelKey(job.spec, job.arch, cuda::SourcesOf(job.spec.file, cuda::EmbeddedSources()), nvrtc->version()));
    if (kept.has_value()) Fill(kernel, *kept);
  }
  return kernels;
}

Result<std::vector<GpuKernel>> BuildGpuKernels(const std::vector<std::string>& targets, std::string_view name, int threads,
                                               const std::function<bool(size_t done, size_t total, const GpuKernel&)>& progress) {
  BILLFISH_ASSIGN_OR_RETURN(const cuda::NvrtcApi* nvrtc, cuda::Nvrtc());
  BILLFISH_ASSIGN_OR_RETURN(const KernelCache cache, Cache());
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<Job> jobs, Jobs(targets, name));
  std::vector<GpuKernel> kernels;
  kernels.reserve(jobs.size());
  for (const Job& job : jobs) kernels.push_back(Describe(job.spec, job.arch));
  std::atomic<size_t> next{0};
  std::mutex mutex;
  size_t done = 0;
  Status failure;
  const auto work = [&] {
    for (size_t i = next++; i < jobs.size(); i = next++) {
      Status status = Build(jobs[i], cache, nvrtc->version(), kernels[i]);
      const std::lock_guard lock(mutex);
      if (status.ok() && progress && !progress(++done, jobs.size(), kernels[i])) {
        status = Status(ErrorCode::kCancelled,
                        fmt::format("compiling the GPU kernels was stopped after {} of {}; what is compiled is kept", done, jobs.size()));
      }
      if (!status.ok()) {
        if (failure.ok()) failure = status;
        next = jobs.size();
      }
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < std::min<int>(threads, static_cast<int>(jobs.size())); ++t) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
  if (!failure.ok()) return failure;
  return kernels;
}

Result<int> ClearGpuKernels() {
  BILLFISH_ASSIGN_OR_RETURN(const KernelCache cache, Cache());
  return cache.Clear();
}

}  // namespace billfish
