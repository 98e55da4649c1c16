// The cache of compiled kernels under attack: damage, foreign files, kills, races, read-only folders, the size bound. No GPU, no NVRTC.
#include "cuda/kernel_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "support/temporary_folder.h"

namespace billfish::cuda {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

const std::string kKey(64, 'a');
const std::string kOther(64, 'b');

CompiledKernel Kernel(size_t bytes, unsigned char fill = 7) {
  CompiledKernel kernel;
  kernel.cubin.assign(bytes, std::byte{fill});
  kernel.log = "ptxas info    : Used 40 registers";
  kernel.registers = 40;
  kernel.spill_bytes = 8;
  return kernel;
}

class KernelCacheTest : public testing::Test {
 protected:
  void TearDown() override {
    std::error_code error;
    fs::permissions(folder_, fs::perms::owner_all, error);
  }
  std::string EntryPath(const std::string& key) const { return folder_ + "/" + key + ".kernel"; }
  std::string ReadBytes(const std::string& path) const {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  void WriteBytes(const std::string& path, const std::string& bytes) const { std::ofstream(path, std::ios::binary) << bytes; }
  size_t FilesWith(const std::string& suffix) const {
    size_t files = 0;
    for (const auto& entry : fs::directory_iterator(folder_)) files += entry.path().string().ends_with(suffix) ? 1 : 0;
    return files;
  }

  test::TemporaryFolder temporary_;
  const std::string root_ = temporary_.path().string(), folder_ = root_ + "/deep/folder";
};

TEST_F(KernelCacheTest, AnEntryComesBackAsItWasWritten) {
  const KernelCache cache(folder_);
  EXPECT_FALSE(cache.Read(kKey).has_value());
  EXPECT_FALSE(fs::exists(folder_));
  ASSERT_TRUE(cache.Write(kKey, Kernel(1000)).ok());
  const auto kernel = cache.Read(kKey);
  ASSERT_TRUE(kernel.has_value());
  EXPECT_EQ(kernel->cubin, Kernel(1000).cubin);
  EXPECT_EQ(kernel->log, Kernel(1000).log);
  EXPECT_EQ(kernel->registers, 40);
  EXPECT_EQ(kernel->spill_bytes, 8);
  EXPECT_FALSE(cache.Read(kOther).has_value());
  EXPECT_EQ(FilesWith(".tmp"), 0U);
}

TEST_F(KernelCacheTest, OnlyTheOwnerMayEnter) {
  ASSERT_TRUE(KernelCache(folder_).Write(kKey, Kernel(10)).ok());
  struct stat info {};
  ASSERT_EQ(stat(folder_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
  ASSERT_EQ(stat(EntryPath(kKey).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST_F(KernelCacheTest, EveryTruncationAndEveryFlippedByteIsNoticed) {
  const KernelCache cache(folder_);
  ASSERT_TRUE(cache.Write(kKey, Kernel(40)).ok());
  const std::string good = ReadBytes(EntryPath(kKey));
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    WriteBytes(EntryPath(kKey), good.substr(0, bytes));
    EXPECT_FALSE(cache.Read(kKey).has_value()) << "cut to " << bytes;
    std::string flipped = good;
    flipped[bytes] = static_cast<char>(flipped[bytes] ^ 0x20);
    WriteBytes(EntryPath(kKey), flipped);
    EXPECT_FALSE(cache.Read(kKey).has_value()) << "byte " << bytes;
  }
  WriteBytes(EntryPath(kKey), good + "x");
  EXPECT_FALSE(cache.Read(kKey).has_value());
  ASSERT_TRUE(cache.Write(kKey, Kernel(40)).ok());
  EXPECT_TRUE(cache.Read(kKey).has_value());
}

TEST_F(KernelCacheTest, AnEntryUnderAnotherKeysNameIsNotUsed) {
  const KernelCache cache(folder_);
  ASSERT_TRUE(cache.Write(kKey, Kernel(40)).ok());
  fs::rename(EntryPath(kKey), EntryPath(kOther));
  EXPECT_FALSE(cache.Read(kOther).has_value());
}

TEST_F(KernelCacheTest, CodeThatOthersCouldHaveWrittenIsNotUsed) {
  const KernelCache cache(folder_);
  ASSERT_TRUE(cache.Write(kKey, Kernel(40)).ok());
  for (const mode_t mode : {0620, 0602, 0666}) {
    ASSERT_EQ(chmod(EntryPath(kKey).c_str(), mode), 0);
    EXPECT_FALSE(cache.Read(kKey).has_value()) << std::oct << mode;
  }
  ASSERT_EQ(chmod(EntryPath(kKey).c_str(), 0644), 0);
  EXPECT_TRUE(cache.Read(kKey).has_value());
  if (geteuid() == 0) {
    ASSERT_EQ(chown(EntryPath(kKey).c_str(), 12345, 12345), 0);
    EXPECT_FALSE(cache.Read(kKey).has_value());
    ASSERT_EQ(chown(EntryPath(kKey).c_str(), 0, 0), 0);
  }
  fs::rename(EntryPath(kKey), folder_ + "/elsewhere");
  fs::create_symlink(folder_ + "/elsewhere", EntryPath(kKey));
  EXPECT_FALSE(cache.Read(kKey).has_value());
  fs::remove(EntryPath(kKey));
  ASSERT_EQ(mkfifo(EntryPath(kKey).c_str(), 0600), 0);
  EXPECT_FALSE(cache.Read(kKey).has_value());  // and does not wait for a writer
}

TEST_F(KernelCacheTest, AFolderThatCannotBeMadeIsReportedWithTheReason) {
  WriteBytes(root_ + "/file", "x");
  const KernelCache cache(root_ + "/file/below");
  const Status status = cache.Write(kKey, Kernel(10));
  EXPECT_EQ(status.code(), ErrorCode::kIo);
  EXPECT_NE(status.message().find("creating the folder"), std::string_view::npos) << status.message();
  EXPECT_NE(status.message().find("compiled again next time"), std::string_view::npos) << status.message();
  EXPECT_FALSE(cache.Acquire(kKey, milliseconds(0)).held());
  EXPECT_FALSE(cache.Read(kKey).has_value());
  EXPECT_EQ(cache.TotalBytes(), 0U);
}

TEST_F(KernelCacheTest, AReadOnlyFolderServesItsEntriesAndTakesNone) {
  ASSERT_TRUE(KernelCache(folder_).Write(kKey, Kernel(10)).ok());
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  const auto check = [&]() -> int {
    const KernelCache cache(folder_);
    if (!cache.Read(kKey).has_value()) return 1;
    const Status status = cache.Write(kOther, Kernel(10));
    if (status.code() != ErrorCode::kIo || status.message().find("creating") == std::string_view::npos) return 2;
    if (cache.Acquire(kOther, milliseconds(0)).held()) return 3;
    return 0;
  };
  if (geteuid() != 0) {
    EXPECT_EQ(check(), 0);
    return;
  }
  // Root may write everywhere: give the folder to another user and look from there.
  for (const std::string& path : {root_, root_ + "/deep", folder_, EntryPath(kKey)}) ASSERT_EQ(chown(path.c_str(), 12345, 12345), 0);
  const pid_t child = fork();
  if (child == 0) _exit(setuid(12345) != 0 ? 9 : check());
  int result = 0;
  ASSERT_EQ(waitpid(child, &result, 0), child);
  EXPECT_EQ(WEXITSTATUS(result), 0);
}

TEST_F(KernelCacheTest, AWriterKilledAtAnyTimeLeavesNoBadEntry) {
  const KernelCache cache(folder_);
  const size_t sizes[2] = {600000, 400000};
  for (int round = 0; round < 25; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      for (int i = 0;; ++i) {
        if (!KernelCache(folder_).Write(kKey, Kernel(sizes[i % 2], static_cast<unsigned char>(i % 2))).ok()) _exit(1);
      }
    }
    std::this_thread::sleep_for(milliseconds(2 + 3 * round));
    // The last one lives until it has published something.
    for (int i = 0; round == 24 && !fs::exists(EntryPath(kKey)) && i < 3000; ++i) std::this_thread::sleep_for(milliseconds(10));
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int result = 0;
    ASSERT_EQ(waitpid(child, &result, 0), child);
    ASSERT_TRUE(WIFSIGNALED(result));
    const auto kernel = cache.Read(kKey);
    EXPECT_EQ(kernel.has_value(), fs::exists(EntryPath(kKey)));
    if (!kernel.has_value()) continue;
    const auto fill = static_cast<size_t>(kernel->cubin.front());
    ASSERT_LT(fill, 2U);
    EXPECT_EQ(kernel->cubin, Kernel(sizes[fill], static_cast<unsigned char>(fill)).cubin);
  }
  EXPECT_TRUE(cache.Read(kKey).has_value());
}

TEST_F(KernelCacheTest, TemporaryFilesOfTheDeadAreRemovedAfterAnHour) {
  const KernelCache cache(folder_);
  ASSERT_TRUE(cache.Write(kKey, Kernel(10)).ok());
  const std::string fresh = folder_ + "/" + kOther + ".1.0.tmp", old = folder_ + "/" + kOther + ".2.0.tmp";
  WriteBytes(fresh, "x"), WriteBytes(old, "x");
  fs::last_write_time(old, fs::file_time_type::clock::now() - std::chrono::hours(2));
  ASSERT_TRUE(cache.Write(kKey, Kernel(10)).ok());
  EXPECT_TRUE(fs::exists(fresh));
  EXPECT_FALSE(fs::exists(old));
}

TEST_F(KernelCacheTest, TheBoundRemovesWhatWasUsedLongestAgo) {
  const KernelCache cache(folder_, 3500);
  std::vector<std::string> keys;
  for (char digit : {'1', '2', '3'}) {
    keys.emplace_back(64, digit);
    ASSERT_TRUE(cache.Write(keys.back(), Kernel(800)).ok());
    fs::last_write_time(EntryPath(keys.back()), fs::file_time_type::clock::now() - std::chrono::hours(10 - (digit - '0')));
  }
  ASSERT_TRUE(cache.Read(keys[0]).has_value());  // now the youngest
  ASSERT_TRUE(cache.Write(kKey, Kernel(800)).ok());
  EXPECT_TRUE(cache.Read(keys[0]).has_value());
  EXPECT_FALSE(cache.Read(keys[1]).has_value());
  EXPECT_TRUE(cache.Read(keys[2]).has_value());
  EXPECT_TRUE(cache.Read(kKey).has_value());
  EXPECT_LE(cache.TotalBytes(), 3500U);
  // The newest entry stays even if it alone is too large.
  ASSERT_TRUE(cache.Write(kOther, Kernel(5000)).ok());
  EXPECT_TRUE(cache.Read(kOther).has_value());
  EXPECT_EQ(FilesWith(".kernel"), 1U);
}

TEST_F(KernelCacheTest, ClearRemovesItsOwnFilesOnly) {
  const KernelCache cache(folder_);
  ASSERT_TRUE(cache.Write(kKey, Kernel(10)).ok());
  ASSERT_TRUE(cache.Write(kOther, Kernel(10)).ok());
  WriteBytes(folder_ + "/notes.kernel", "mine");
  WriteBytes(folder_ + "/" + kKey + ".9.9.tmp", "x");
  const auto removed = cache.Clear();
  ASSERT_TRUE(removed.ok());
  EXPECT_EQ(removed.value(), 2);
  EXPECT_EQ(FilesWith(""), 1U);
  EXPECT_TRUE(fs::exists(folder_ + "/notes.kernel"));
  EXPECT_EQ(KernelCache(root_ + "/nowhere").Clear().value(), 0);
}

TEST_F(KernelCacheTest, TheLockKeepsOthersOutUntilItIsReleasedOrItsHolderDies) {
  const KernelCache cache(folder_);
  {
    const auto lock = cache.Acquire(kKey, milliseconds(0));
    EXPECT_TRUE(lock.held());
    EXPECT_FALSE(cache.Acquire(kKey, milliseconds(30)).held());
    EXPECT_TRUE(cache.Acquire(kOther, milliseconds(0)).held());
  }
  EXPECT_EQ(FilesWith(".lock"), 0U);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = KernelCache(folder_).Acquire(kKey, milliseconds(0));
    const char byte = lock.held() ? 1 : 0;
    if (write(ready[1], &byte, 1) != 1) _exit(1);
    for (;;) pause();
  }
  char held = 0;
  ASSERT_EQ(read(ready[0], &held, 1), 1);
  EXPECT_EQ(held, 1);
  EXPECT_FALSE(cache.Acquire(kKey, milliseconds(30)).held());
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(cache.Acquire(kKey, milliseconds(1000)).held());
  close(ready[0]), close(ready[1]);
}

TEST_F(KernelCacheTest, TheFolderFollowsTheEnvironment) {
  const auto set = [](const char* name, const char* value) { value == nullptr ? unsetenv(name) : setenv(name, value, 1); };
  const char* names[3] = {"BILLFISH_CACHE_DIR", "XDG_CACHE_HOME", "HOME"};
  std::optional<std::string> saved[3];
  for (int i = 0; i < 3; ++i) {
    if (const char* value = std::getenv(names[i])) saved[i] = value;
  }
  set("BILLFISH_CACHE_DIR", "/a"), set("XDG_CACHE_HOME", "/b"), set("HOME", "/c");
  EXPECT_EQ(KernelCache::DefaultFolder(), "/a");
  set("BILLFISH_CACHE_DIR", "");
  EXPECT_EQ(KernelCache::DefaultFolder(), "/b/billfish");
  set("XDG_CACHE_HOME", nullptr);
  EXPECT_EQ(KernelCache::DefaultFolder(), "/c/.cache/billfish");
  set("HOME", nullptr);
  EXPECT_EQ(KernelCache::DefaultFolder(), std::nullopt);
  for (int i = 0; i < 3; ++i) set(names[i], saved[i].has_value() ? saved[i]->c_str() : nullptr);
}

}  // namespace
}  // namespace billfish::cuda
