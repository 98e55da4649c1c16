// Every kernel configuration compiles for every target with this machine's NVRTC, and the hot ones stay in registers. Needs no GPU.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cuda/grouped_decode.h"
#include "cuda/jit.h"
#include "cuda/kernel_list.h"
#include "cuda/linear_decode.h"
#include "cuda/linear_tile.h"
#include "cuda/nvrtc.h"
#include "cuda/token_moe.h"

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

double ThreadSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Compiles every job on all cores; reports failures and what each file costs.
void CompileAll(const std::vector<Job>& jobs) {
  ASSERT_FALSE(jobs.empty());
  struct Cost {
    int kernels = 0;
    double seconds = 0, slowest_s = 0;
    std::string slowest;
  };
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::vector<std::string> failures;
  std::map<std::string, Cost> costs;
  const auto work = [&] {
    for (size_t i = next++; i < jobs.size(); i = next++) {
      const double begin = ThreadSeconds();
      const auto kernel = CompileKernel(jobs[i].spec, jobs[i].arch);
      const double seconds = ThreadSeconds() - begin;
      const Status status = kernel.ok() ? CheckHot(jobs[i].spec, kernel.value()) : kernel.error();
      const std::lock_guard lock(mutex);
      if (!status.ok()) failures.push_back(fmt::format("{}: {}", Describe(jobs[i]), status.message()));
      Cost& cost = costs[jobs[i].spec.file];
      ++cost.kernels;
      cost.seconds += seconds;
      if (seconds > cost.slowest_s) cost.slowest_s = seconds, cost.slowest = Describe(jobs[i]);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < std::max(1U, std::thread::hardware_concurrency()); ++t) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) ADD_FAILURE() << failure;
  double total = 0;
  std::string dearest;
  for (const auto& [file, cost] : costs) {
    total += cost.seconds;
    if (dearest.empty() || cost.seconds > costs[dearest].seconds) dearest = file;
  }
  const Cost& most = costs[dearest];
  fmt::print("{} kernels, {:.1f} s of processor time; most for {}: {} kernels, {:.1f} s, up to {:.2f} s: {}\n", jobs.size(), total, dearest,
             most.kernels, most.seconds, most.slowest_s, most.slowest);
}

// The kinds of device code that differ: one target of each, compiled in every configuration.
const std::set<std::string>& WholeTargets() {
  static const std::set<std::string> targets = {"sm_80", "sm_90a"};
  return targets;
}

std::vector<Job> JobsFor(const std::string& target) {
  std::vector<Job> jobs;
  for (const Arch arch : AllArchs()) {
    if (arch.Target() != target) continue;
    for (KernelSpec& spec : AllKernelSpecs(arch)) jobs.push_back({std::move(spec), arch});
  }
  return jobs;
}

class KernelsFor : public testing::TestWithParam<Arch> {};

// sm_80 and sm_90a: everything. The other targets run the code of one of the two; of each file the first and the last configuration is
// compiled for them, and all of them where BILLFISH_COMPILE_ALL is set, as in `scripts/test.sh full`.
TEST_P(KernelsFor, EveryConfigurationCompiles) {
  REQUIRE_NVRTC();
  const std::vector<int>& supported = Nvrtc().value()->supported;
  const std::string target = GetParam().Target();
  if (std::find(supported.begin(), supported.end(), GetParam().number()) == supported.end()) {
    ASSERT_EQ(std::getenv("BILLFISH_REQUIRE_NVRTC"), nullptr) << "NVRTC " << Nvrtc().value()->version() << " has no " << target;
    GTEST_SKIP() << "NVRTC " << Nvrtc().value()->version() << " has no " << target;
  }
  std::vector<Job> jobs = JobsFor(target);
  if (WholeTargets().count(target) == 0 && std::getenv("BILLFISH_COMPILE_ALL") == nullptr) {
    std::vector<Job> some;
    for (size_t i = 0; i < jobs.size(); ++i) {
      const bool first = i == 0 || jobs[i - 1].spec.file != jobs[i].spec.file;
      const bool last = i + 1 == jobs.size() || jobs[i + 1].spec.file != jobs[i].spec.file;
      if (first || last) some.push_back(jobs[i]);
    }
    jobs = std::move(some);
  }
  CompileAll(jobs);
}

INSTANTIATE_TEST_SUITE_P(Target, KernelsFor, testing::ValuesIn(AllArchs().begin(), AllArchs().end()),
                         [](const testing::TestParamInfo<Arch>& arch) { return arch.param.Target(); });

// The largest scales and zero points that 4-bit codes can have; AllKernelSpecs has the layouts that models ship with.
TEST(Kernels, CompileForFp32ScalesOfEach16Columns) {
  REQUIRE_NVRTC();
  constexpr Arch kArch{9, 0};
  constexpr TileLayout kLayout{TileCodes::kInt4, TileScale::kF32, 16, true, false};
  std::vector<KernelSpec> specs;
  for (const auto& variant : LinearDecodeVariants(kLayout, kArch)) specs.push_back(LinearDecodeSpec(kLayout, variant, false, kArch));
  for (const auto& variant : StreamVariants(kLayout, kArch)) {
    specs.push_back(StreamSpec(kLayout, kArch, variant, false, ActivationKind::kSwiglu));
  }
  specs.push_back(DecodeSpec(kLayout, DecodeVariants(kLayout, kArch).front(), false, ActivationKind::kSwiglu));
  specs.push_back(TokenMoeSpec(kLayout, kArch, TokenVariantOf(kLayout, kArch), false, ActivationKind::kSwiglu));
  for (const bool grouped : {false, true}) {
    const TileVariant variant = TileVariants(kLayout, kArch, grouped, TileCores::kBest).front();
    specs.push_back(TileSpec(kLayout, variant, false, grouped, ActivationKind::kNone, kArch));
  }
  for (const KernelSpec& spec : specs) {
    const auto kernel = CompileKernel(spec, kArch);
    EXPECT_TRUE(kernel.ok()) << Describe({spec, kArch}) << ": " << kernel.error().message();
  }
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
  // The second time too, when NVRTC could answer from a cache of its own.
  for (int time = 0; time < 2; ++time) {
    const auto kernel = CompileKernel({.file = "read_probe.cu", .function = "read_probe"}, {9, 0});
    ASSERT_TRUE(kernel.ok()) << kernel.error().message();
    EXPECT_GT(kernel.value().registers, 30) << kernel.value().log;  // eight loads of 16 bytes in flight
    EXPECT_EQ(kernel.value().spill_bytes, 0);
  }
}

TEST(Nvrtc, IsToldToKeepNoCacheOfItsOwnFromTheVersionThatHasOne) {
  NvrtcApi api;
  for (const auto& [major, minor, has] :
       std::vector<std::tuple<int, int, bool>>{{11, 8, false}, {12, 8, false}, {12, 9, true}, {13, 0, true}}) {
    api.major = major;
    api.minor = minor;
    EXPECT_EQ(api.HasNoCacheOption(), has) << api.version();
  }
}

TEST(CompileKernel, ReadsSpillsFromTheReport) {
  CompiledKernel kernel;
  kernel.log =
      "ptxas info    : Function properties for attention\n"
      "ptxas         .     96 bytes stack frame, 40 bytes spill stores, 56 bytes spill loads\n"
      "ptxas info    : Used 128 registers, used 1 barriers, 96 bytes cumulative stack size, 512 bytes smem";
  ReadReport(kernel);
  EXPECT_EQ(kernel.registers, 128);
  EXPECT_EQ(kernel.spill_bytes, 96);
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
