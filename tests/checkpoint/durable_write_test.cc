// Interrupted runs: the old output stays, the message says why, and the next run finishes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "billfish/quantize.h"
#include "checkpoint/write_fixture.h"

namespace billfish {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

QuantizeOptions SmallShards() {
  QuantizeOptions options;
  options.max_shard_bytes = 40'000;
  options.threads = 1;  // a forked child must not touch its parent's thread pool
  return options;
}

// Runs body in a child process; its wait status.
int InChild(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

class Interrupted : public testing::Test {
 protected:
  void SetUp() override {
    test::WriteSmallMoe(folder_ / "src");
    QuantizeOptions options = SmallShards();
    ASSERT_TRUE(QuantizeCheckpoint(folder_ / "src", folder_ / "expected", options).ok());
    options.scheme = schemes::kFp8Channel;
    ASSERT_TRUE(QuantizeCheckpoint(folder_ / "src", folder_ / "dst", options).ok());
    old_ = test::FolderContent(folder_ / "dst");
  }

  // The next run completes and replaces the old output.
  void ExpectRerunSucceeds(bool resumes) {
    EXPECT_EQ(test::FolderContent(folder_ / "dst"), old_);
    QuantizeOptions options = SmallShards();
    options.overwrite = true;
    uint64_t resumed = 0;
    options.progress = [&](const QuantizeProgress& progress) {
      resumed = progress.bytes_resumed;
      return true;
    };
    const Status status = QuantizeCheckpoint(folder_ / "src", folder_ / "dst", options);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(resumed > 0, resumes);
    EXPECT_EQ(test::FolderContent(folder_ / "dst"), test::FolderContent(folder_ / "expected"));
    EXPECT_FALSE(fs::exists(folder_ / "dst.partial"));
  }

  test::TemporaryFolder folder_;
  std::map<std::string, std::string> old_;
};

TEST_F(Interrupted, KillLeavesTheOldOutputAndTheNextRunGoesOn) {
  const int status = InChild([&] {
    QuantizeOptions options = SmallShards();
    options.overwrite = true;
    options.progress = [](const QuantizeProgress& progress) {
      if (progress.tensors_done == 8) ::kill(::getpid(), SIGKILL);
      return true;
    };
    return QuantizeCheckpoint(folder_ / "src", folder_ / "dst", options).ok() ? 0 : 1;
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(fs::exists(folder_ / "dst.partial"));
  ExpectRerunSucceeds(true);
}

TEST_F(Interrupted, FullDiskLeavesTheOldOutputAndSaysSo) {
  const int status = InChild([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10'000, 10'000};  // below the first shard
    ::setrlimit(RLIMIT_FSIZE, &limit);
    QuantizeOptions options = SmallShards();
    options.overwrite = true;
    const Status result = QuantizeCheckpoint(folder_ / "src", folder_ / "dst", options);
    test::WriteFile(folder_ / "message", std::string(result.message()));
    return result.code() == ErrorCode::kIo ? 0 : 1;
  });
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  const std::string message = test::FileText(folder_ / "message");
  EXPECT_THAT(message, HasSubstr("dst.partial/model-00001-of-"));
  EXPECT_THAT(message, HasSubstr("File too large; make room or choose another place, then run again"));
  ExpectRerunSucceeds(false);
}

TEST_F(Interrupted, CancellingKeepsFinishedShards) {
  QuantizeOptions options = SmallShards();
  options.overwrite = true;
  options.progress = [](const QuantizeProgress& progress) { return progress.tensors_done < 9; };
  const Status status = QuantizeCheckpoint(folder_ / "src", folder_ / "dst", options);
  EXPECT_EQ(status.code(), ErrorCode::kCancelled);
  EXPECT_THAT(std::string(status.message()), HasSubstr("stopped after 9 of 13 tensors"));
  ExpectRerunSucceeds(true);
}

TEST_F(Interrupted, ARunWithOtherOptionsOrAnotherSourceStartsAfresh) {
  QuantizeOptions options = SmallShards();
  options.overwrite = true;
  options.scheme = schemes::kNvfp4;
  options.progress = [](const QuantizeProgress& progress) { return progress.tensors_done < 9; };
  EXPECT_FALSE(QuantizeCheckpoint(folder_ / "src", folder_ / "dst", options).ok());
  options.scheme = schemes::kMxfp4;
  EXPECT_FALSE(QuantizeCheckpoint(folder_ / "src", folder_ / "dst", options).ok());
  test::WriteSmallMoe(folder_ / "src", 99);
  fs::remove_all(folder_ / "expected");
  ASSERT_TRUE(QuantizeCheckpoint(folder_ / "src", folder_ / "expected", SmallShards()).ok());
  ExpectRerunSucceeds(false);
}

TEST_F(Interrupted, ATornShardIsWrittenAgain) {
  QuantizeOptions options = SmallShards();
  options.overwrite = true;
  options.progress = [](const QuantizeProgress& progress) { return progress.tensors_done < 9; };
  EXPECT_FALSE(QuantizeCheckpoint(folder_ / "src", folder_ / "dst", options).ok());
  for (const auto& entry : fs::directory_iterator(folder_ / "dst.partial")) {
    if (entry.path().extension() == ".safetensors") fs::resize_file(entry.path(), 100);
  }
  ExpectRerunSucceeds(false);
}

TEST_F(Interrupted, AnExistingOutputIsReplacedOnlyWhenAllowed) {
  const Status status = QuantizeCheckpoint(folder_ / "src", folder_ / "dst", SmallShards());
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("dst exists; choose another place"));
  EXPECT_EQ(test::FolderContent(folder_ / "dst"), old_);
}

TEST_F(Interrupted, AFolderThatIsNoCheckpointIsNeverReplaced) {
  fs::create_directory(folder_ / "letters");
  test::WriteFile(folder_ / "letters" / fs::path("a.txt"), "dear");
  QuantizeOptions options = SmallShards();
  options.overwrite = true;
  const Status status = QuantizeCheckpoint(folder_ / "src", folder_ / "letters", options);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is no checkpoint folder; it is not replaced"));
  fs::create_directory(folder_ / "new.partial");
  test::WriteFile(folder_ / "new.partial" / fs::path("a.txt"), "dear");
  const Status partial = QuantizeCheckpoint(folder_ / "src", folder_ / "new", options);
  EXPECT_THAT(std::string(partial.message()), HasSubstr("no note of an unfinished run; remove it"));
  EXPECT_EQ(test::FileText(folder_ / "new.partial" / fs::path("a.txt")), "dear");
}

TEST_F(Interrupted, TheSourceIsNeverOverwritten) {
  QuantizeOptions options = SmallShards();
  options.overwrite = true;
  const auto before = test::FolderContent(folder_ / "src");
  const Status status = QuantizeCheckpoint(folder_ / "src", folder_ / "src/", options);
  EXPECT_THAT(std::string(status.message()), HasSubstr("would be written over"));
  EXPECT_EQ(test::FolderContent(folder_ / "src"), before);
}

TEST_F(Interrupted, TwoRunsDoNotWriteTheSamePlaceAtOnce) {
  QuantizeOptions options = SmallShards(), other = SmallShards();
  std::string message;
  options.progress = [&](const QuantizeProgress& progress) {
    if (progress.tensors_done == 1) message = QuantizeCheckpoint(folder_ / "src", folder_ / "new", other).message();
    return true;
  };
  ASSERT_TRUE(QuantizeCheckpoint(folder_ / "src", folder_ / "new", options).ok());
  EXPECT_THAT(message, HasSubstr("is being written by another process"));
}

// Kilobytes of the process' largest memory so far.
int64_t PeakKilobytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmHWM:") continue;
    int64_t kilobytes = 0;
    status >> kilobytes;
    return kilobytes;
  }
  return -1;
}

TEST(QuantizeMemory, PeakIsAMatrixAndNotTheModel) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer keeps freed memory";
  const test::TemporaryFolder folder;
  fs::create_directory(folder / "src");
  test::SafetensorsBuilder file;
  const std::vector<uint16_t> values = test::RandomBF16(512 * 1024, 7);  // 1 MB
  for (int layer = 0; layer < 24; ++layer) {
    file.Add("model.layers." + std::to_string(layer) + ".mlp.up_proj.weight", "BF16", {512, 1024}, values);
    file.Add("model.layers." + std::to_string(layer) + ".conv.weight", "BF16", {512, 1024}, values);
  }
  file.Write(folder / "src/model.safetensors");
  test::WriteFile(folder / "src/config.json", "{}");
  const int status = InChild([&] {
    QuantizeOptions options;
    options.threads = 1;
    const int64_t before = PeakKilobytes();
    if (!QuantizeCheckpoint(folder / "src", folder / "dst", options).ok()) return 254;
    return static_cast<int>(std::min<int64_t>((PeakKilobytes() - before) / 1024, 253));
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_LT(WEXITSTATUS(status), 8) << "megabytes for a model of 48";
}

}  // namespace
}  // namespace billfish
