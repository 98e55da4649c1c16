// `billfish kernels`, without a GPU. What compiles skips where there is no NVRTC.
#include <gmock/gmock.h>

#include "cli/program.h"

namespace billfish::cli_test {
namespace {

using ::testing::HasSubstr;

Finished RunKernels(const Scratch& cache, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "kernels");
  Input input;
  input.environment = {{"BILLFISH_CACHE_DIR", cache / "kernels"}};
  return RunProgram(arguments, input);
}

bool Without(const Finished& run, const char* what) { return run.exit_code == 1 && run.err.find(what) != std::string::npos; }

TEST(KernelsVerb, BuildsListsAndClears) {
  const Scratch cache;
  const Finished empty = RunKernels(cache, {"list", "--arch", "sm_90a", "--name", "read_", "--json"});
  if (Without(empty, "NVRTC cannot be opened")) {
    ASSERT_EQ(std::getenv("BILLFISH_REQUIRE_NVRTC"), nullptr) << empty.err;
    GTEST_SKIP() << empty.err;
  }
  ASSERT_EQ(empty.exit_code, 0) << empty.err;
  const Json before = empty.Document();
  ASSERT_GT(before["kernels"].size(), 0U);
  for (const Json& kernel : before["kernels"]) {
    EXPECT_EQ(kernel["target"], "sm_90a");
    EXPECT_EQ(kernel["kept"], false);
    EXPECT_FALSE(kernel.contains("registers"));
  }
  EXPECT_EQ(before["folder"], cache / "kernels");
  EXPECT_EQ(before["bytes"], 0);
  EXPECT_THAT(before["compiler"].get<std::string>(), HasSubstr("NVRTC 1"));

  const Finished build = RunKernels(cache, {"build", "--arch", "90", "--name", "read_", "--json"});
  ASSERT_EQ(build.exit_code, 0) << build.err;
  const Json built = build.Document();
  EXPECT_EQ(built["kernels"].size(), 1U);
  for (const Json& kernel : built["kernels"]) {
    EXPECT_EQ(kernel["kept"], true);
    EXPECT_GT(kernel["registers"], 0);
    EXPECT_GT(kernel["bytes"], 0);
  }
  const Finished list = RunKernels(cache, {"list", "--arch", "9.0", "--name", "read_"});
  EXPECT_EQ(list.exit_code, 0);
  const std::string count = std::to_string(before["kernels"].size());
  EXPECT_THAT(list.out, HasSubstr(count + " of " + count + " kernels are compiled and kept in " + (cache / "kernels")));
  EXPECT_THAT(list.out, HasSubstr("read_probe"));

  const Finished none = RunKernels(cache, {"build", "--arch", "9.0", "--name", "no_such_kernel"});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("'no_such_kernel' in their name"));
  const Finished all = RunKernels(cache, {"list", "--arch", "all", "--json"});
  EXPECT_EQ(all.exit_code, 0) << all.err;
  EXPECT_GT(all.Document()["kernels"].size(), before["kernels"].size() * 7);

  const Finished clear = RunKernels(cache, {"clear", "--json"});
  EXPECT_EQ(clear.exit_code, 0);
  EXPECT_EQ(clear.Document()["removed"], before["kernels"].size());
  EXPECT_THAT(RunKernels(cache, {"clear"}).out, HasSubstr("removed 0 compiled kernels"));
}

TEST(KernelsVerb, AnUnknownTargetIsWrongUsageAndTheKnownOnesAreNamed) {
  const Scratch cache;
  for (const char* verb : {"list", "build"}) {
    const Finished run = RunKernels(cache, {verb, "--arch", "sm_90,sm_17"});
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_THAT(run.err, HasSubstr("target 'sm_17'"));
    EXPECT_THAT(run.err, HasSubstr("sm_80, sm_86, sm_89, sm_90a, sm_100a, sm_103a, sm_120a"));
  }
  EXPECT_EQ(RunKernels(cache, {"build", "--arch", ","}).exit_code, 2);
  EXPECT_EQ(RunKernels(cache, {}).exit_code, 2);
}

TEST(KernelsVerb, NativeNeedsAGpu) {
  const Scratch cache;
  const Finished run = RunKernels(cache, {"list", "--arch", "native"});
  if (run.exit_code == 0) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("a GPU "));
}

TEST(KernelsVerb, AMissingCompilerSaysWhatToInstall) {
  const Scratch cache;
  Input input;
  input.environment = {{"BILLFISH_NVRTC", "/no/such/libnvrtc.so"}, {"BILLFISH_CACHE_DIR", cache / "kernels"}};
  for (const char* verb : {"list", "build"}) {
    const Finished run = RunProgram({"kernels", verb, "--arch", "all"}, input);
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_THAT(run.err, HasSubstr("/no/such/libnvrtc.so"));
    EXPECT_THAT(run.err, HasSubstr("pip install nvidia-cuda-nvrtc"));
  }
}

TEST(KernelsVerb, WithoutAnyCacheVariableBuildSaysWhichToSet) {
  Input input;
  input.environment = {{"BILLFISH_CACHE_DIR", ""}, {"XDG_CACHE_HOME", ""}, {"HOME", ""}};
  const Finished run = RunProgram({"kernels", "build", "--arch", "sm_90"}, input);
  if (Without(run, "NVRTC cannot be opened")) GTEST_SKIP() << run.err;
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("BILLFISH_CACHE_DIR, XDG_CACHE_HOME/billfish or HOME/.cache/billfish"));
}

}  // namespace
}  // namespace billfish::cli_test
