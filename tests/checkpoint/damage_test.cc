// Damaged checkpoints of every format: an error or a weight, never a crash. The sanitizer builds give this test its teeth.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "checkpoint/write_fixture.h"

namespace billfish {
namespace {

namespace fs = std::filesystem;
using test::FileText;
using test::TemporaryFolder;
using test::WriteFile;

constexpr int kFlipsPerFile = 40;

std::vector<fs::path> GoldenFolders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(fs::path(BILLFISH_SOURCE_DIR) / "tests/golden")) {
    if (fs::exists(entry.path() / "expected.safetensors") && fs::exists(entry.path() / "model.safetensors"))
      folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

uint64_t HeaderBytes(const std::string& file) {
  uint64_t size = 0;
  std::memcpy(&size, file.data(), sizeof size);
  return 8 + size;
}

// Does everything a user could do with the folder. True if all of it succeeded.
bool UseAll(const fs::path& folder) {
  const auto checkpoint = Checkpoint::Open(folder);
  if (!checkpoint) {
    EXPECT_FALSE(checkpoint.error().message().empty());
    return false;
  }
  for (const TensorInfo& tensor : checkpoint->tensors()) EXPECT_TRUE(checkpoint->Read(tensor.name));
  const auto modules = checkpoint->Modules();
  if (!modules) {
    EXPECT_FALSE(modules.error().message().empty());
    return false;
  }
  bool all = true;
  for (const ModuleInfo& module : *modules) {
    const auto weight = checkpoint->LoadWeight(module.name);
    if (!weight) {
      EXPECT_FALSE(weight.error().message().empty());
    }
    all = all && weight && !test::Decoded(*weight).empty();
  }
  return all;
}

TEST(Damage, FlippedBitsOfAHeaderGiveAnErrorOrAWeight) {
  std::mt19937_64 rng(1);
  for (const fs::path& golden : GoldenFolders()) {
    SCOPED_TRACE(golden.filename().string());
    const TemporaryFolder folder;
    WriteFile(folder / "config.json", FileText(golden / "config.json"));
    const std::string sound = FileText(golden / "model.safetensors");
    int refused = 0;
    for (int i = 0; i < kFlipsPerFile; ++i) {
      std::string damaged = sound;
      const size_t bit = rng() % (HeaderBytes(sound) * 8);
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
      WriteFile(folder / "model.safetensors", damaged);
      refused += UseAll(folder.path()) ? 0 : 1;
    }
    EXPECT_GT(refused, kFlipsPerFile / 4);
  }
}

TEST(Damage, FlippedBitsOfAConfigurationGiveAnErrorOrAWeight) {
  std::mt19937_64 rng(2);
  for (const fs::path& golden : GoldenFolders()) {
    SCOPED_TRACE(golden.filename().string());
    const TemporaryFolder folder;
    fs::copy_file(golden / "model.safetensors", folder / "model.safetensors");
    const std::string sound = FileText(golden / "config.json");
    for (int i = 0; i < kFlipsPerFile; ++i) {
      std::string damaged = sound;
      const size_t bit = rng() % (sound.size() * 8);
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
      WriteFile(folder / "config.json", damaged);
      (void)UseAll(folder.path());
    }
  }
}

TEST(Damage, AFileCutAtAnyTensorIsRefused) {
  for (const fs::path& golden : GoldenFolders()) {
    SCOPED_TRACE(golden.filename().string());
    const TemporaryFolder folder;
    WriteFile(folder / "config.json", FileText(golden / "config.json"));
    const std::string sound = FileText(golden / "model.safetensors");
    const auto checkpoint = Checkpoint::Open(golden);
    ASSERT_TRUE(checkpoint) << checkpoint.error().message();
    for (const TensorInfo& tensor : checkpoint->tensors()) {
      for (const size_t length : {tensor.file_offset, tensor.file_offset + tensor.bytes / 2}) {
        if (length == sound.size()) continue;
        WriteFile(folder / "model.safetensors", sound.substr(0, length));
        const auto cut = Checkpoint::Open(folder.path());
        ASSERT_FALSE(cut) << length;
        EXPECT_EQ(cut.error().code(), ErrorCode::kCorruptFile);
      }
    }
  }
}

TEST(Damage, ExtentsBesideAZeroAreNotComputedWith) {
  for (const char* name : {"m.qweight", "m.weight_packed", "m.weight"}) {
    const TemporaryFolder folder;
    WriteFile(
        folder / "model.safetensors",
        test::SafetensorsBytes(std::string(R"({")") + name + R"(":{"dtype":"I32","shape":[0,4611686018427387904],"data_offsets":[0,0]},)" +
                                   R"("m.scales":{"dtype":"F16","shape":[0,4611686018427387904],"data_offsets":[0,0]}})",
                               ""));
    const auto checkpoint = Checkpoint::Open(folder.path());
    ASSERT_TRUE(checkpoint) << checkpoint.error().message();
    const auto info = checkpoint->Describe("m");
    ASSERT_FALSE(info);
    EXPECT_EQ(info.error().code(), ErrorCode::kCorruptFile);
    EXPECT_NE(info.error().message().find("is empty"), std::string::npos) << info.error().message();
  }
}

TEST(Damage, ConfigurationsThatNestTooDeepAreRefused) {
  const TemporaryFolder folder;
  test::SafetensorsBuilder().AddFilled("m.weight", "F32", {1, 2}, 32).Write(folder / "model.safetensors");
  const auto nested = [](size_t depth) { return R"({"a":)" + std::string(depth, '[') + std::string(depth, ']') + "}"; };
  WriteFile(folder / "config.json", nested(200));
  EXPECT_TRUE(Checkpoint::Open(folder.path()));
  WriteFile(folder / "config.json", nested(1'000'000));
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().message(), "config.json nests 1000001 levels deep; at most 256 are read");
  WriteFile(folder / "config.json", R"({"a":")" + std::string(1000, '[') + R"(\"[["})");
  EXPECT_TRUE(Checkpoint::Open(folder.path()));
}

}  // namespace
}  // namespace billfish
