// Packed weights kept in a folder: the second creation maps them, whatever is wrong with a file never does harm.
#include "billfish/panel_store.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <vector>

#include "billfish/linear.h"
#include "support/temporary_folder.h"

namespace billfish {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int64_t kRows = 3, kN = 70, kK = 200;

std::vector<float> Wave(int64_t count, float step) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(step * static_cast<float>(i + 1));
  return values;
}

PackedWeight Weight(const QuantScheme& scheme = schemes::kMxfp4, float step = 0.37f) {
  const std::vector<float> values = Wave(kN * kK, step);
  return *PackedWeight::Quantize({values.data(), DType::kF32, {kN, kK}}, scheme);
}

class PanelStoreTest : public ::testing::Test {
 protected:
  static LinearOptions Options(const PanelStore& store, const std::string& name = "a") {
    LinearOptions options;
    options.activation = DType::kF32;
    options.panels = {&store, name};
    return options;
  }

  static std::vector<float> Run(const Linear& linear) {
    std::vector<float> x = Wave(kRows * kK, 0.11f), y(static_cast<size_t>(kRows * kN));
    Workspace workspace;
    ExecContext ctx{.workspace = workspace};
    EXPECT_TRUE(workspace.Reserve(linear.WorkspaceBytes(kRows)).ok());
    const Status status = linear.Forward({x.data(), DType::kF32, {kRows, kK}}, {y.data(), DType::kF32, {kRows, kN}}, ctx);
    EXPECT_TRUE(status.ok()) << status.message();
    return y;
  }

  // Keeps one entry and returns its file.
  fs::path Keep(const std::string& identity = "id") {
    const PanelStore store(folder_, identity);
    EXPECT_TRUE(Linear::Create(Weight(), Options(store)).ok());
    EXPECT_EQ(store.report().written, 1) << store.report().note;
    return OnlyFile();
  }
  fs::path OnlyFile() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_)) files.push_back(entry.path());
    EXPECT_EQ(files.size(), 1U);
    return files.empty() ? fs::path() : files[0];
  }

  test::TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path();
};

TEST_F(PanelStoreTest, ASecondCreationMapsWhatTheFirstKept) {
  for (const QuantScheme& scheme : {schemes::kMxfp4, schemes::kNvfp4, schemes::Int4(32, false), schemes::kFp8Channel, schemes::kBf16}) {
    const PackedWeight weight = Weight(scheme);
    const PanelStore first(folder_, scheme.Name());
    const Result<Linear> made = Linear::Create(weight, Options(first));
    ASSERT_TRUE(made.ok()) << made.error().message();
    EXPECT_EQ(first.report().written, 1);
    EXPECT_EQ(first.report().written_bytes, made->bytes());
    EXPECT_EQ(first.report().note, "");

    const PanelStore second(folder_, scheme.Name());
    const Result<Linear> mapped = Linear::Map(Options(second));
    ASSERT_TRUE(mapped.ok()) << mapped.error().message();
    EXPECT_EQ(second.report().mapped, 1);
    EXPECT_EQ(second.report().mapped_bytes, made->bytes());
    EXPECT_EQ(second.report().written, 0);
    EXPECT_EQ(mapped->scheme(), scheme);
    EXPECT_EQ(mapped->kernel(), made->kernel());
    EXPECT_EQ(mapped->weight_bytes(), made->weight_bytes());
    EXPECT_EQ(Run(*mapped), Run(*made)) << scheme.Name();
  }
}

TEST_F(PanelStoreTest, TheBiasIsThatOfTheCall) {
  Keep();
  const std::vector<float> bias = Wave(kN, 1.0f);
  const PanelStore store(folder_, "id");
  LinearOptions options = Options(store);
  const std::vector<float> plain = Run(*Linear::Map(options));
  options.bias = ConstTensorView(bias.data(), DType::kF32, {kN});
  const std::vector<float> biased = Run(*Linear::Map(options));
  EXPECT_EQ(biased[5], plain[5] + bias[5]);
  options.bias = ConstTensorView(bias.data(), DType::kF32, {kN - 1});
  EXPECT_THAT(Linear::Map(options).error().message(), HasSubstr("the bias of a weight [1, 70, 200]"));
}

TEST_F(PanelStoreTest, AnotherIdentityOrNameFindsNothing) {
  Keep();
  const PanelStore other(folder_, "another");
  EXPECT_EQ(Linear::Map(Options(other)).error().code(), ErrorCode::kNotFound);
  const PanelStore same(folder_, "id");
  const Result<Linear> unknown = Linear::Map(Options(same, "b"));
  EXPECT_EQ(unknown.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(unknown.error().message(), HasSubstr("no packed form of b is kept"));
  EXPECT_EQ(same.report().note, "") << "absent is nothing to report";
}

TEST_F(PanelStoreTest, EveryDamageIsSeenAndRepaired) {
  const fs::path file = Keep();
  const auto size = static_cast<int64_t>(fs::file_size(file));
  const auto flip = [&](int64_t at) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(at);
    const int byte = stream.get();
    stream.seekp(at);
    stream.put(static_cast<char>(byte ^ 0x10));
  };
  const std::vector<float> right = Run(*Linear::Create(Weight(), LinearOptions{.activation = DType::kF32}));
  struct Case {
    std::string what, note;
    std::function<void()> damage;
  };
  const std::vector<Case> cases = {
      {"magic", "was made by something else", [&] { flip(3); }},
      {"header", "has a damaged header", [&] { flip(60); }},
      {"key", "was made by something else", [&] { flip(257); }},
      {"first byte of the image", "their checksum is wrong", [&] { flip(4096); }},
      {"panels", "their checksum is wrong", [&] { flip(size - 1000); }},
      {"last byte", "their checksum is wrong", [&] { flip(size - 1); }},
      {"cut inside the panels", fmt::format("should have {}", size), [&] { fs::resize_file(file, static_cast<size_t>(size - 1)); }},
      {"cut inside the header", "is shorter than its header", [&] { fs::resize_file(file, 100); }},
      {"cut inside the key", "was made by something else", [&] { fs::resize_file(file, 257); }},
      {"empty", "is empty", [&] { fs::resize_file(file, 0); }},
      {"longer", fmt::format("should have {}", size), [&] { fs::resize_file(file, static_cast<size_t>(size + 1)); }},
      {"a folder", "is not a regular file",
       [&] {
         fs::remove(file);
         fs::create_directory(file);
       }},
  };
  for (const Case& c : cases) {
    c.damage();
    const PanelStore store(folder_, "id");
    EXPECT_EQ(Linear::Map(Options(store)).error().code(), ErrorCode::kNotFound) << c.what;
    EXPECT_THAT(store.report().note, HasSubstr(c.note)) << c.what;
    EXPECT_THAT(store.report().note, HasSubstr(file.string()));
    if (fs::is_directory(file)) fs::remove(file);
    EXPECT_EQ(Run(*Linear::Create(Weight(), Options(store))), right);
    EXPECT_EQ(store.report().written, 1) << c.what;
    EXPECT_TRUE(Linear::Map(Options(store)).ok()) << c.what << " was not repaired";
  }
}

TEST_F(PanelStoreTest, AFolderThatCannotBeWrittenIsNoError) {
  const fs::path blocked = folder_ / "file";
  std::ofstream(blocked) << "not a folder";
  const PanelStore store(blocked / "panels", "id");
  EXPECT_EQ(Linear::Map(Options(store)).error().code(), ErrorCode::kNotFound);
  const Result<Linear> made = Linear::Create(Weight(), Options(store));
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(store.report().written, 0);
  EXPECT_THAT(store.report().note, HasSubstr("the next run packs again"));
}

TEST_F(PanelStoreTest, ARefusedWriteLeavesNothingBehind) {
  const pid_t child = ::fork();
  if (child == 0) {  // a file-size limit stands for a full disk; SIGXFSZ would kill
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{5000, 5000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const PanelStore store(folder_, "id");
    const bool made = Linear::Create(Weight(), Options(store)).ok();
    ::_exit(made && store.report().written == 0 && store.report().note.find("cannot be written") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(PanelStoreTest, ProcessesThatKeepTheSameEntryAtOnceDoNotDisturbEachOther) {
  const std::vector<float> right = Run(*Linear::Create(Weight(), LinearOptions{.activation = DType::kF32}));
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      bool good = true;
      for (int round = 0; round < 20; ++round) {
        const PanelStore store(folder_, "id");
        Result<Linear> mapped = Linear::Map(Options(store));
        good = good && store.report().note.empty() && (!mapped.ok() || Run(*mapped) == right);
        good = good && Run(*Linear::Create(Weight(), Options(store))) == right && store.report().written == 1;
      }
      ::_exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  OnlyFile();
}

TEST_F(PanelStoreTest, WhatAKilledProcessLeftIsRemovedLater) {
  const fs::path old = folder_ / "0.panels.1-0.unfinished", fresh = folder_ / "0.panels.2-0.unfinished";
  std::ofstream(old) << "half";
  std::ofstream(fresh) << "half";
  fs::last_write_time(old, fs::file_time_type::clock::now() - std::chrono::hours(2));
  const PanelStore store(folder_, "id");
  ASSERT_TRUE(Linear::Create(Weight(), Options(store)).ok());
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(fresh)) << "somebody may be writing it";
}

TEST_F(PanelStoreTest, AMappingOutlivesItsFile) {
  const fs::path file = Keep();
  const PanelStore store(folder_, "id");
  const Result<Linear> mapped = Linear::Map(Options(store));
  ASSERT_TRUE(mapped.ok());
  fs::remove(file);
  EXPECT_EQ(Run(*mapped), Run(*Linear::Create(Weight(), LinearOptions{.activation = DType::kF32})));
}

TEST_F(PanelStoreTest, AKernelThatReadsNoPanelsIsCreatedFromTheWeight) {
  Keep();
  const PanelStore store(folder_, "id");
  LinearOptions options = Options(store);
  options.kernel = "reference";
  EXPECT_EQ(Linear::Map(options).error().code(), ErrorCode::kNotFound);
  EXPECT_TRUE(Linear::Create(Weight(), options).ok());
  EXPECT_EQ(store.report().written, 0);
  options.kernel = "no such kernel";
  EXPECT_EQ(Linear::Map(options).error().code(), ErrorCode::kInvalidArgument);
}

TEST_F(PanelStoreTest, StacksOfExpertsAreKeptAsWell) {
  const PackedWeight parts[] = {Weight(schemes::kNvfp4, 0.3f), Weight(schemes::kNvfp4, 0.7f)};
  const PackedWeight stack = *PackedWeight::StackExperts(parts);
  const PanelStore store(folder_, "id");
  const Result<GroupedLinear> made = GroupedLinear::Create(stack, Options(store));
  ASSERT_TRUE(made.ok());
  const Result<GroupedLinear> mapped = GroupedLinear::Map(Options(store));
  ASSERT_TRUE(mapped.ok()) << mapped.error().message();
  EXPECT_EQ(mapped->E(), 2);
  EXPECT_EQ(mapped->scheme(), stack.scheme());
  const std::vector<float> x = Wave(kRows * kK, 0.11f);
  const int64_t offsets[] = {0, 1, kRows};
  std::vector<std::vector<float>> results;
  for (const GroupedLinear* linear : {&*made, &*mapped}) {
    std::vector<float> y(static_cast<size_t>(kRows * kN));
    Workspace workspace;
    ExecContext ctx{.workspace = workspace};
    ASSERT_TRUE(workspace.Reserve(linear->WorkspaceBytes(kRows, kRows)).ok());
    ASSERT_TRUE(linear->Forward({x.data(), DType::kF32, {kRows, kK}}, offsets, {}, {y.data(), DType::kF32, {kRows, kN}}, ctx).ok());
    results.push_back(y);
  }
  EXPECT_EQ(results[0], results[1]);
}

}  // namespace
}  // namespace billfish
