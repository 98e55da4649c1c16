// The key of a compiled kernel and the way from spec to code through the cache. Compiling needs NVRTC, not a GPU.
#include "cuda/jit.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "cuda/embedded_sources.h"
#include "cuda/jit_key.h"
#include "cuda/kernel_cache.h"
#include "cuda/nvrtc.h"
#include "support/temporary_folder.h"

namespace billfish::cuda {
namespace {

namespace fs = std::filesystem;

KernelSpec Probe() { return {.file = "read_probe.cu", .function = "read_probe", .defines = {{"BF_UNUSED", "1"}}}; }

TEST(KernelKey, ChangesWithEachIngredientAndWithNothingElse) {
  const std::vector<EmbeddedSource> sources = {{"cuda/kernels/a.cu", "text a", 6}, {"cuda/kernels/b.cuh", "text b", 6}};
  const Arch arch{9, 0};
  const KernelSpec spec = Probe();
  const std::string key = KernelKey(spec, arch, sources, "13.0");
  EXPECT_EQ(key.size(), 64U);
  EXPECT_EQ(KernelKey(spec, arch, sources, "13.0"), key);
  std::set<std::string> keys = {key};
  const auto expect_new = [&](const std::string& other, const char* what) { EXPECT_TRUE(keys.insert(other).second) << what; };

  auto changed = spec;
  changed.file = "other.cu";
  expect_new(KernelKey(changed, arch, sources, "13.0"), "file");
  changed = spec, changed.function = "other";
  expect_new(KernelKey(changed, arch, sources, "13.0"), "function");
  changed = spec, changed.defines[0].second = "2";
  expect_new(KernelKey(changed, arch, sources, "13.0"), "value of a definition");
  changed = spec, changed.defines[0].first = "BF_OTHER";
  expect_new(KernelKey(changed, arch, sources, "13.0"), "name of a definition");
  changed = spec, changed.defines.emplace_back("BF_MORE", "1");
  expect_new(KernelKey(changed, arch, sources, "13.0"), "one more definition");
  expect_new(KernelKey(spec, {9, 1}, sources, "13.0"), "target");
  expect_new(KernelKey(spec, {8, 0}, sources, "13.0"), "target");
  expect_new(KernelKey(spec, arch, sources, "13.1"), "compiler");
  auto edited = sources;
  edited[1].text = "text c";
  expect_new(KernelKey(spec, arch, edited, "13.0"), "text of a header");
  edited = sources, edited[1].name = "cuda/kernels/c.cuh";
  expect_new(KernelKey(spec, arch, edited, "13.0"), "name of a header");
  edited = sources, edited.pop_back();
  expect_new(KernelKey(spec, arch, edited, "13.0"), "one header less");

  // How a kernel is launched or judged does not change its code.
  changed = spec, changed.shared_bytes = 4096, changed.hot = true;
  EXPECT_EQ(KernelKey(changed, arch, sources, "13.0"), key);
}

TEST(KernelKey, CoversWhatAFileIncludesAndNothingElse) {
  const std::string a = "// a\n#include \"cuda/b.h\"\n#include \"cuda/missing.h\"\nint x;",
                    b = "#include \"cuda/kernels/c.cuh\"\n#include \"cuda/b.h\"\n", c = "c", d = "d";
  const std::vector<EmbeddedSource> all = {{"cuda/b.h", b.c_str(), b.size()},
                                           {"cuda/kernels/a.cu", a.c_str(), a.size()},
                                           {"cuda/kernels/c.cuh", c.c_str(), c.size()},
                                           {"cuda/kernels/d.cuh", d.c_str(), d.size()}};
  std::vector<std::string> names;
  for (const EmbeddedSource& source : SourcesOf("a.cu", all)) names.emplace_back(source.name);
  EXPECT_EQ(names, (std::vector<std::string>{"cuda/b.h", "cuda/kernels/a.cu", "cuda/kernels/c.cuh"}));
  EXPECT_TRUE(SourcesOf("b.cu", all).empty());
}

TEST(KernelKey, OptionsNameTheTargetAndEveryDefinition) {
  const std::vector<std::string> options = CompileOptions(Probe(), {10, 0});
  const std::set<std::string> set(options.begin(), options.end());
  EXPECT_EQ(set.count("--gpu-architecture=sm_100a"), 1U);
  EXPECT_EQ(set.count("-DBF_UNUSED=1"), 1U);
  for (const char* option : FixedOptions()) EXPECT_EQ(set.count(option), 1U) << option;
}

class CachedKernelTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto nvrtc = Nvrtc(); !nvrtc.ok()) {
      ASSERT_EQ(std::getenv("BILLFISH_REQUIRE_NVRTC"), nullptr) << nvrtc.error().message();
      GTEST_SKIP() << nvrtc.error().message();
    }
  }
  std::vector<std::string> Entries() const {
    std::vector<std::string> entries;
    for (const auto& entry : fs::directory_iterator(folder_)) entries.push_back(entry.path().string());
    return entries;
  }
  test::TemporaryFolder temporary_;
  const std::string folder_ = temporary_.path().string();
};

TEST_F(CachedKernelTest, TheSecondRequestIsServedFromTheFolder) {
  const KernelCache cache(folder_);
  const auto first = CachedKernel(Probe(), {9, 0}, &cache);
  ASSERT_TRUE(first.ok()) << first.error().message();
  ASSERT_EQ(Entries().size(), 1U);
  // Proof that the entry is what is used: another cubin under the same key.
  const std::string key = fs::path(Entries().front()).stem();
  CompiledKernel marked = first.value();
  marked.cubin.push_back(std::byte{1});
  ASSERT_TRUE(cache.Write(key, marked).ok());
  const auto second = CachedKernel(Probe(), {9, 0}, &cache);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second.value().cubin, marked.cubin);
  const auto other_target = CachedKernel(Probe(), {8, 0}, &cache);
  ASSERT_TRUE(other_target.ok());
  EXPECT_EQ(Entries().size(), 2U);
  EXPECT_NE(other_target.value().cubin, first.value().cubin);
}

TEST_F(CachedKernelTest, ADamagedEntryIsRebuilt) {
  const KernelCache cache(folder_);
  const auto first = CachedKernel(Probe(), {9, 0}, &cache);
  ASSERT_TRUE(first.ok());
  const std::string path = Entries().front();
  fs::resize_file(path, fs::file_size(path) / 2);
  const auto again = CachedKernel(Probe(), {9, 0}, &cache);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again.value().cubin, first.value().cubin);
  EXPECT_TRUE(cache.Read(fs::path(path).stem()).has_value());
}

TEST_F(CachedKernelTest, AFolderThatCannotBeWrittenIsNoError) {
  std::ofstream(folder_ + "/file") << "x";
  const KernelCache cache(folder_ + "/file/below");
  EXPECT_TRUE(CachedKernel(Probe(), {9, 0}, &cache).ok());
  EXPECT_TRUE(CachedKernel(Probe(), {9, 0}, nullptr).ok());
}

TEST_F(CachedKernelTest, AKernelThatDoesNotCompileIsNotKept) {
  const KernelCache cache(folder_);
  KernelSpec broken = Probe();
  broken.defines = {{"kLoads", "not a number"}};
  EXPECT_EQ(CachedKernel(broken, {9, 0}, &cache).status().code(), ErrorCode::kCompile);
  EXPECT_TRUE(Entries().empty());
}

TEST_F(CachedKernelTest, ProcessesThatWantOneKernelAtOnceAllGetIt) {
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      const KernelCache cache(folder_);
      _exit(CachedKernel(Probe(), {9, 0}, &cache).ok() ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int result = 0;
    ASSERT_EQ(waitpid(child, &result, 0), child);
    EXPECT_TRUE(WIFEXITED(result) && WEXITSTATUS(result) == 0);
  }
  ASSERT_EQ(Entries().size(), 1U);
  EXPECT_TRUE(KernelCache(folder_).Read(fs::path(Entries().front()).stem()).has_value());
}

TEST(NvrtcCandidates, TheEnvironmentNamesAFileOrAFolder) {
  const char* before = std::getenv("BILLFISH_NVRTC");
  const std::string saved = before == nullptr ? "" : before;
  setenv("BILLFISH_NVRTC", "/somewhere/libnvrtc-mine.so", 1);
  EXPECT_EQ(NvrtcCandidates(), std::vector<std::string>{"/somewhere/libnvrtc-mine.so"});
  setenv("BILLFISH_NVRTC", testing::TempDir().c_str(), 1);
  const std::vector<std::string> folder = NvrtcCandidates();
  ASSERT_FALSE(folder.empty());
  for (const std::string& candidate : folder)
    EXPECT_EQ(fs::path(candidate).parent_path(), fs::path(testing::TempDir() + "/x").lexically_normal().parent_path());
  unsetenv("BILLFISH_NVRTC");
  EXPECT_EQ(NvrtcCandidates().front().rfind("libnvrtc.so.1", 0), 0U);
  if (!saved.empty()) setenv("BILLFISH_NVRTC", saved.c_str(), 1);
}

}  // namespace
}  // namespace billfish::cuda
