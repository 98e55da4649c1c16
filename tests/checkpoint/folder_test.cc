// Folders, shards and the index.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "billfish/checkpoint.h"
#include "support/checkpoint_folder.h"

namespace billfish {
namespace {

namespace fs = std::filesystem;
using test::SafetensorsBuilder;
using test::TemporaryFolder;
using test::WriteFile;
using testing::HasSubstr;

std::string Error(const Result<Checkpoint>& checkpoint) { return checkpoint ? "no error" : std::string(checkpoint.error().message()); }

std::string Index(const std::string& map) { return R"({"metadata":{"total_size":8},"weight_map":)" + map + "}"; }

SafetensorsBuilder One(const std::string& name) { return SafetensorsBuilder().Add<float>(name, "F32", {1, 2}, {1, 2}); }

TEST(Folder, MissingPathsAndEmptyFoldersAreNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(Error(Checkpoint::Open(folder / "none")), HasSubstr("does not exist"));
  EXPECT_THAT(Error(Checkpoint::Open(folder.path())), HasSubstr("holds no .safetensors file"));
}

TEST(Folder, WithoutAnIndexAllFilesOfTheFolderCountAndSubfoldersDoNot) {
  const TemporaryFolder folder;
  One("a.weight").Write(folder / "x.safetensors");
  One("b.weight").Write(folder / "y.safetensors");
  fs::create_directory(folder / "original");
  One("c.weight").Write(folder / "original/z.safetensors");
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint) << Error(checkpoint);
  EXPECT_EQ(checkpoint->tensors().size(), 2U);
}

TEST(Folder, TheIndexDecidesWhichFilesAndTensorsCount) {
  const TemporaryFolder folder;
  One("a.weight").Write(folder / "model-1.safetensors");
  SafetensorsBuilder()
      .Add<float>("b.weight", "F32", {1, 1}, {3})
      .Add<float>("stale", "F32", {1}, {4})
      .Write(folder / "model-2.safetensors");
  One("a.weight").Write(folder / "consolidated.safetensors");
  WriteFile(folder / "model.safetensors.index.json", Index(R"({"a.weight":"model-1.safetensors","b.weight":"model-2.safetensors"})"));
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint) << Error(checkpoint);
  EXPECT_EQ(checkpoint->tensors().size(), 2U);
  EXPECT_EQ(checkpoint->shards().size(), 2U);
  EXPECT_EQ(*checkpoint->ReadF32("b.weight"), std::vector<float>{3});
}

TEST(Folder, AnIndexMayNotLeaveItsFolder) {
  const TemporaryFolder folder;
  One("a.weight").Write(folder / "secret.safetensors");
  fs::create_directory(folder / "model");
  for (const char* name : {"../secret.safetensors", "/etc/passwd", "..", "", "sub/x.safetensors", "a\\\\b"}) {
    WriteFile(folder / "model/model.safetensors.index.json", Index(std::string(R"({"a.weight":")") + name + "\"}"));
    EXPECT_THAT(Error(Checkpoint::Open(folder / "model")), HasSubstr("no file name inside the folder")) << name;
  }
  WriteFile(folder / "model/model.safetensors.index.json", Index(R"({"a.weight":"link.safetensors"})"));
  fs::create_symlink("../secret.safetensors", folder / "model/link.safetensors");
  EXPECT_THAT(Error(Checkpoint::Open(folder / "model")), HasSubstr("outside its folder"));
}

TEST(Folder, LinksOfADownloadCacheAreFollowed) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "models--a--b/snapshots/123");
  fs::create_directories(folder / "models--a--b/blobs");
  One("a.weight").Write(folder / "models--a--b/blobs/cafe");
  fs::create_symlink("../../blobs/cafe", folder / "models--a--b/snapshots/123/model.safetensors");
  const auto checkpoint = Checkpoint::Open(folder / "models--a--b/snapshots/123");
  ASSERT_TRUE(checkpoint) << Error(checkpoint);
}

TEST(Folder, AnIndexThatNamesWhatIsNotThereIsAnError) {
  const TemporaryFolder folder;
  One("a.weight").Write(folder / "m.safetensors");
  WriteFile(folder / "model.safetensors.index.json", Index(R"({"b.weight":"m.safetensors"})"));
  EXPECT_THAT(Error(Checkpoint::Open(folder.path())),
              HasSubstr("the index puts tensor b.weight into m.safetensors, which does not hold it"));
  WriteFile(folder / "model.safetensors.index.json", Index(R"({"b.weight":"gone.safetensors"})"));
  EXPECT_THAT(Error(Checkpoint::Open(folder.path())), HasSubstr("gone.safetensors cannot be opened"));
  WriteFile(folder / "model.safetensors.index.json", Index("[]"));
  EXPECT_THAT(Error(Checkpoint::Open(folder.path())), HasSubstr("\"weight_map\" must be an object"));
  WriteFile(folder / "model.safetensors.index.json", "{");
  EXPECT_THAT(Error(Checkpoint::Open(folder.path())), HasSubstr("is not valid JSON"));
}

TEST(Folder, TheSameTensorInTwoFilesIsAnError) {
  const TemporaryFolder folder;
  One("a.weight").Write(folder / "x.safetensors");
  One("a.weight").Write(folder / "y.safetensors");
  EXPECT_THAT(Error(Checkpoint::Open(folder.path())), HasSubstr("the tensor a.weight is in x.safetensors and in y.safetensors"));
}

TEST(Folder, ADamagedShardIsNamed) {
  const TemporaryFolder folder;
  WriteFile(folder / "model.safetensors", "damaged");
  EXPECT_THAT(Error(Checkpoint::Open(folder.path())), HasSubstr("model.safetensors: 7 bytes are too few"));
}

}  // namespace
}  // namespace billfish
