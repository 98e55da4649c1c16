// Every kernel configuration compiles for every target with this machine's NVRTC, and the hot ones stay in registers. Needs no GPU.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cuda/jit.h"
#include "cuda/kernel_list.h"
#include "cuda/nvrtc.h"

namespace billfish::cuda {
namespace {

// BILLFISH_REQUIRE_NVRTC turns the skip into a failure, where the tests must not pass without having compiled.
#define REQUIRE_NVRTC()                                                                   \
  if (const auto nvrtc = Nvrtc(); !nvrtc.ok()) {                                          \
    ASSERT_EQ(std::getenv("BILLFISH_REQUIRE_NVRTC"), nullptr) << nvrtc.error().message(); \
    GTEST_SKIP() << nvrtc.error().message();                                              \
  }

struct Job {
  KernelSpec spec;
  Arch arch;
};

std::string Describe(const Job& job) {
  std::string text = fmt::format("{} {} for {}", job.spec.file, job.spec.function, job.arch.Target());
  for (const auto& [name, value] : job.spec.defines) text += fmt::format(" {}={}", name, value);
  return text;
}

TEST(Kernels, EveryConfigurationCompilesForEveryTarget) {
  REQUIRE_NVRTC();
  const std::vector<int>& supported = Nvrtc().value()->supported;
  std::vector<Job> jobs;
  for (const Arch arch : AllArchs()) {
    if (std::find(supported.begin(), supported.end(), arch.number()) == supported.end()) {
      ASSERT_EQ(std::getenv("BILLFISH_REQUIRE_NVRTC"), nullptr) << "NVRTC " << Nvrtc().value()->version() << " has no " << arch.Target();
      continue;
    }
    for (KernelSpec& spec : AllKernelSpecs(arch)) jobs.push_back({std::move(spec), arch});
  }
  ASSERT_FALSE(jobs.empty());
  const auto begin = std::chrono::steady_clock::now();
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::vector<std::string> failures;
  std::string slowest;
  double slowest_s = 0;
  const auto work = [&] {
    for (size_t i = next++; i < jobs.size(); i = next++) {
      const auto job_begin = std::chrono::steady_clock::now();
      const auto kernel = CompileKernel(jobs[i].spec, jobs[i].arch);
      const Status status = kernel.ok() ? CheckHot(jobs[i].spec, kernel.value()) : kernel.error();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - job_begin).count();
      const std::lock_guard lock(mutex);
      if (!status.ok()) failures.push_back(fmt::format("{}: {}", Describe(jobs[i]), status.message()));
      if (seconds > slowest_s) slowest_s = seconds, slowest = Describe(jobs[i]);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < std::max(1U, std::thread::hardware_concurrency()); ++t) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) ADD_FAILURE() << failure;
  fmt::print("{} kernels in {:.1f} s; slowest {:.2f} s: {}\n", jobs.size(),
             std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), slowest_s, slowest);
}

TEST(Kernels, EveryDeviceSourceHasAConfiguration) {
  std::set<std::string> used;
  for (const Arch arch : AllArchs()) {
    for (const KernelSpec& spec : AllKernelSpecs(arch)) used.insert(spec.file);
  }
  for (const auto& entry : std::filesystem::directory_iterator(std::string(BILLFISH_SOURCE_DIR) + "/src/cuda/kernels")) {
    if (entry.path().extension() != ".cu") continue;
    EXPECT_EQ(used.count(entry.path().filename().string()), 1U) << entry.path().filename() << " is in no spec of AllKernelSpecs";
  }
}

TEST(CompileKernel, AnUnknownFileIsRefused) {
  REQUIRE_NVRTC();
  const auto kernel = CompileKernel({.file = "no_such_kernel.cu", .function = "f"}, {9, 0});
  ASSERT_FALSE(kernel.ok());
  EXPECT_EQ(kernel.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(kernel.error().message().find("cuda/kernels/no_such_kernel.cu, which is not part of this library"), std::string_view::npos);
}

TEST(CompileKernel, ACompilerErrorComesBackWithTheLog) {
  REQUIRE_NVRTC();
  const auto kernel = CompileKernel({.file = "read_probe.cu", .function = "read_probe", .defines = {{"kLoads", "not a number"}}}, {9, 0});
  ASSERT_FALSE(kernel.ok());
  EXPECT_EQ(kernel.error().code(), ErrorCode::kCompile);
  EXPECT_NE(kernel.error().message().find("does not compile for sm_90a"), std::string_view::npos);
  EXPECT_NE(kernel.error().message().find("read_probe.cu("), std::string_view::npos) << kernel.error().message();
}

TEST(CompileKernel, ATargetThatTheCompilerDoesNotKnowIsUnsupported) {
  REQUIRE_NVRTC();
  const auto newer = CompileKernel({.file = "read_probe.cu", .function = "read_probe"}, {99, 0});
  EXPECT_EQ(newer.status().code(), ErrorCode::kUnsupported);
  EXPECT_NE(newer.status().message().find("install a newer NVRTC"), std::string_view::npos) << newer.status().message();
  const auto older = CompileKernel({.file = "read_probe.cu", .function = "read_probe"}, {2, 0});
  EXPECT_NE(older.status().message().find("install an older NVRTC"), std::string_view::npos) << older.status().message();
}

TEST(CompileKernel, ReportsRegisters) {
  REQUIRE_NVRTC();
  const auto kernel = CompileKernel({.file = "read_probe.cu", .function = "read_probe"}, {9, 0});
  ASSERT_TRUE(kernel.ok()) << kernel.error().message();
  EXPECT_GT(kernel.value().registers, 30) << kernel.value().log;  // eight loads of 16 bytes in flight
  EXPECT_EQ(kernel.value().spill_bytes, 0);
}

TEST(CheckHot, RefusesWhatCostsSpeedInHotKernelsOnly) {
  KernelSpec spec{.file = "a.cu", .function = "a", .hot = true};
  CompiledKernel kernel;
  EXPECT_TRUE(CheckHot(spec, kernel).ok());
  kernel.spill_bytes = 8;
  EXPECT_NE(CheckHot(spec, kernel).message().find("spills 8 bytes"), std::string_view::npos);
  kernel.spill_bytes = 0;
  kernel.log = "ptxas info : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ...";
  EXPECT_NE(CheckHot(spec, kernel).message().find("must be fast"), std::string_view::npos);
  spec.hot = false;
  EXPECT_TRUE(CheckHot(spec, kernel).ok());
}

TEST(Nvrtc, WhereItIsMissingTheSentenceSaysWhatToInstall) {
  const auto nvrtc = OpenNvrtc({"libbillfish_no_nvrtc.so.13", "libc.so.6"});
  ASSERT_FALSE(nvrtc.ok());
  EXPECT_EQ(nvrtc.error().code(), ErrorCode::kNotFound);
  const std::string message(nvrtc.error().message());
  EXPECT_NE(message.find("NVRTC cannot be opened"), std::string::npos) << message;
  EXPECT_NE(message.find("libc.so.6: has no nvrtcVersion"), std::string::npos) << message;
  EXPECT_NE(message.find("pip install nvidia-cuda-nvrtc"), std::string::npos) << message;
  EXPECT_NE(message.find("BILLFISH_NVRTC"), std::string::npos) << message;
}

}  // namespace
}  // namespace billfish::cuda
