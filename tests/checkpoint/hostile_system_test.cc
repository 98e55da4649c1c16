// Quantising where the system does its worst: SIGKILL at any instant, and a disk that is really full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "billfish/quantize.h"
#include "checkpoint/write_fixture.h"

namespace billfish {
namespace {

namespace fs = std::filesystem;
using test::FolderContent;
using test::TemporaryFolder;

constexpr const char* kNote = ".billfish-partial.json";

QuantizeOptions OneThread() {
  QuantizeOptions options;
  options.threads = 1;  // a forked child has no other
  options.max_shard_bytes = 60'000;
  options.overwrite = true;
  return options;
}

TEST(KillAtAnyInstant, LeavesTheOldFolderOrTheNewOneAndTheNextRunSucceeds) {
  const TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "new", OneThread()).ok());
  QuantizeOptions old_options = OneThread();
  old_options.scheme = schemes::kNvfp4;
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "old", old_options).ok());
  const auto whole_run = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
  const auto expected = FolderContent(folder / "new"), old = FolderContent(folder / "old");
  constexpr int kRounds = 24;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    fs::remove_all(folder / "dst");
    fs::copy(folder / "old", folder / "dst", fs::copy_options::recursive);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(QuantizeCheckpoint(folder / "src", folder / "dst", OneThread()).ok() ? 0 : 1);
    ::usleep(static_cast<useconds_t>(whole_run.count() * round * 5 / 4 / kRounds));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    auto found = FolderContent(folder / "dst");
    found.erase(kNote);
    EXPECT_TRUE(found == old || found == expected);
    const Status again = QuantizeCheckpoint(folder / "src", folder / "dst", OneThread());
    ASSERT_TRUE(again.ok()) << again.message();
    EXPECT_EQ(FolderContent(folder / "dst"), expected);
    EXPECT_FALSE(fs::exists(folder / "dst.partial"));
  }
}

// The two moments that the test above rarely hits.
TEST(KillAtAnyInstant, LeftoversWithoutANoteAreKnown) {
  const TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  ASSERT_TRUE(QuantizeCheckpoint(folder / "src", folder / "expected", OneThread()).ok());
  const auto expected = FolderContent(folder / "expected");

  fs::create_directory(folder / "dst.partial");  // before the first note had its name
  test::WriteFile(folder / "dst.partial/.billfish-partial.json.part", "{\"made");
  const Status first = QuantizeCheckpoint(folder / "src", folder / "dst", OneThread());
  ASSERT_TRUE(first.ok()) << first.message();
  EXPECT_EQ(FolderContent(folder / "dst"), expected);

  fs::copy(folder / "dst", folder / "dst.partial");  // after the exchange: the old checkpoint waits to be removed
  test::WriteFile(folder / "dst" / fs::path(kNote), "{}");
  const Status second = QuantizeCheckpoint(folder / "src", folder / "dst", OneThread());
  ASSERT_TRUE(second.ok()) << second.message();
  EXPECT_EQ(FolderContent(folder / "dst"), expected);
  EXPECT_FALSE(fs::exists(folder / "dst.partial"));
}

// Mounts a disk of 300 kB for this process alone. False where the system does not allow it.
bool MountSmallDisk(const fs::path& place) {
  if (::unshare(CLONE_NEWNS) != 0) {
    const std::string user = std::to_string(::getuid());
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    test::WriteFile("/proc/self/uid_map", "0 " + user + " 1");
  }
  return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", place.c_str(), "tmpfs", 0, "size=300k,mode=777") == 0;
}

TEST(FullDisk, LeavesTheOldFolderAndSaysWhatToDo) {
  const TemporaryFolder folder;
  test::WriteSmallMoe(folder / "src");
  fs::create_directory(folder / "disk");
  constexpr int kNoMount = 77;
  const pid_t child = ::fork();
  if (child == 0) {
    if (!MountSmallDisk(folder / "disk")) ::_exit(kNoMount);
    std::error_code error;
    fs::create_directory(folder / "disk/dst", error);
    test::WriteFile(folder / "disk/dst/config.json", "old");
    QuantizeOptions options = OneThread();
    options.scheme = schemes::kFp8Channel;
    const Status status = QuantizeCheckpoint(folder / "src", folder / "disk/dst", options);
    const bool kept = test::FileText(folder / "disk/dst/config.json") == "old";
    test::WriteFile(folder / "message", std::string(status.message()) + (kept ? " KEPT" : " LOST"));
    ::_exit(status.code() == ErrorCode::kIo ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNoMount) GTEST_SKIP() << "this system lets no unprivileged process mount a small disk";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const std::string message = test::FileText(folder / "message");
  EXPECT_THAT(message, testing::HasSubstr("No space left on device; make room or choose another place, then run again"));
  EXPECT_THAT(message, testing::EndsWith("KEPT"));
}

}  // namespace
}  // namespace billfish
