// ModelOptions::panel_cache: the second load maps every matrix, answers bit for bit the same, and belongs to the files it was made from.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <vector>

#include "model/edited_model.h"

namespace billfish {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::vector<float> Logits(const Model& model) {
  const std::vector<int32_t> ids = {1, 5, 9, 2, 7, 3};
  const auto T = static_cast<int64_t>(ids.size());
  std::vector<float> logits(static_cast<size_t>(T * model.config().vocab));
  Result<KvCache> cache = model.NewCache(T);
  EXPECT_TRUE(cache.ok());
  Workspace workspace;
  ExecContext ctx{.workspace = workspace};
  const Status status = model.Forward(ids, *cache, {logits.data(), DType::kF32, {T, model.config().vocab}}, ctx);
  EXPECT_TRUE(status.ok()) << status.message();
  return logits;
}

class PanelCacheTest : public ::testing::Test {
 protected:
  Model Load(const fs::path& path, ModelOptions options = {}) {
    options.panel_cache = cache_.path() / "panels";
    Result<Model> model = Model::Load(path, options);
    EXPECT_TRUE(model.ok()) << model.error().message();
    return std::move(*model);
  }
  fs::path Copy(const fs::path& from, const std::string& name) {
    fs::copy(from, folders_.path() / name, fs::copy_options::recursive);
    return folders_.path() / name;
  }
  std::vector<fs::path> Entries() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(cache_.path() / "panels")) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }

  test::TemporaryFolder cache_, folders_;
};

TEST_F(PanelCacheTest, TheSecondLoadMapsEveryMatrixAndAnswersTheSame) {
  std::vector<fs::path> folders = {fs::path(BILLFISH_SOURCE_DIR) / "models/tiny-moe-mxfp4"};
  for (const char* name : {"gpt-oss-plain-tiny", "mixtral-window-tiny", "qwen2-tiny", "qwen3-tiny", "llama-linear-tiny"}) {
    folders.push_back(test::GoldenModel(name));
  }
  for (const fs::path& folder : folders) {
    const Result<Model> plain = Model::Load(folder);
    ASSERT_TRUE(plain.ok());
    EXPECT_EQ(plain->panel_cache().written + plain->panel_cache().mapped, 0);
    const Model first = Load(folder);
    const auto matrices = static_cast<int64_t>(first.modules().size());
    size_t bytes = 0;
    for (const ModuleSummary& module : first.modules()) bytes += module.bytes;
    EXPECT_EQ(first.panel_cache().written, matrices) << folder;
    EXPECT_EQ(first.panel_cache().written_bytes, bytes);
    EXPECT_EQ(first.panel_cache().mapped, 0);
    EXPECT_EQ(first.panel_cache().note, "");

    const Model second = Load(folder);
    EXPECT_EQ(second.panel_cache().mapped, matrices) << folder;
    EXPECT_EQ(second.panel_cache().mapped_bytes, bytes);
    EXPECT_EQ(second.panel_cache().written, 0);
    ASSERT_EQ(second.modules().size(), plain->modules().size());
    for (size_t i = 0; i < second.modules().size(); ++i) {
      EXPECT_EQ(second.modules()[i].name, plain->modules()[i].name);
      EXPECT_EQ(second.modules()[i].scheme, plain->modules()[i].scheme);
      EXPECT_EQ(second.modules()[i].kernel, plain->modules()[i].kernel);
      EXPECT_EQ(second.modules()[i].weight_bytes, plain->modules()[i].weight_bytes);
    }
    EXPECT_EQ(Logits(second), Logits(*plain)) << folder;
    EXPECT_EQ(Logits(first), Logits(*plain)) << folder;
  }
}

TEST_F(PanelCacheTest, OneEntryServesEveryModeActivationAndTier) {
  const fs::path folder = fs::path(BILLFISH_SOURCE_DIR) / "models/tiny-moe-mxfp4";
  const auto matrices = static_cast<int64_t>(Load(folder).modules().size());
  for (ModelOptions options :
       {ModelOptions{.mode = Mode::kFast}, ModelOptions{.activation = DType::kBF16}, ModelOptions{.kernel = "scalar"}}) {
    const Result<Model> plain = Model::Load(folder, options);
    const Model mapped = Load(folder, options);
    EXPECT_EQ(mapped.panel_cache().mapped, matrices);
    EXPECT_EQ(Logits(mapped), Logits(*plain));
  }
  const Model reference = Load(folder, {.kernel = "reference"});
  EXPECT_EQ(reference.panel_cache().mapped + reference.panel_cache().written, 0) << "it reads no panels";
}

TEST_F(PanelCacheTest, ACopyOfTheModelUsesTheSameEntriesAndARewrittenOneDoesNot) {
  const fs::path original = Copy(test::GoldenModel("qwen3-tiny"), "original");
  Load(original);
  const size_t entries = Entries().size();
  const fs::path moved = folders_.path() / "moved";
  fs::rename(original, moved);
  EXPECT_GT(Load(moved).panel_cache().mapped, 0);
  EXPECT_EQ(Entries().size(), entries);

  // The same size and header, other weights: only the time of change tells.
  const fs::path weights = moved / "model.safetensors";
  {
    std::fstream stream(weights, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(-2, std::ios::end);
    stream.put(0x11);
  }
  fs::last_write_time(weights, fs::last_write_time(weights) + std::chrono::milliseconds(1));
  const Model rewritten = Load(moved);
  EXPECT_EQ(rewritten.panel_cache().mapped, 0);
  EXPECT_EQ(Logits(rewritten), Logits(*Model::Load(moved)));
}

TEST_F(PanelCacheTest, AnotherConfigurationDoesNotUseTheEntries) {
  const fs::path folder = Copy(test::GoldenModel("qwen3-tiny"), "model");
  Load(folder);
  std::ofstream(folder / "config.json", std::ios::app) << "\n";
  EXPECT_EQ(Load(folder).panel_cache().mapped, 0);
  EXPECT_GT(Load(folder).panel_cache().mapped, 0);
}

TEST_F(PanelCacheTest, ADamagedEntryIsPackedAnewAndNamed) {
  const fs::path folder = fs::path(BILLFISH_SOURCE_DIR) / "models/tiny-moe-mxfp4";
  const Result<Model> plain = Model::Load(folder);
  const auto matrices = static_cast<int64_t>(Load(folder).modules().size());
  for (const fs::path& entry : {Entries().front(), Entries().back()}) {
    std::fstream stream(entry, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(-100, std::ios::end);
    const int byte = stream.get();
    stream.seekp(-100, std::ios::end);
    stream.put(static_cast<char>(byte ^ 1));
    stream.close();
    const Model repaired = Load(folder);
    EXPECT_GT(repaired.panel_cache().written, 0);
    EXPECT_EQ(repaired.panel_cache().mapped + repaired.panel_cache().written, matrices);
    EXPECT_THAT(repaired.panel_cache().note, HasSubstr(entry.filename().string()));
    EXPECT_EQ(Logits(repaired), Logits(*plain));
    EXPECT_EQ(Load(folder).panel_cache().mapped, matrices);
  }
}

TEST_F(PanelCacheTest, AMissingEntryAloneIsMadeAnew) {
  const fs::path folder = test::GoldenModel("llama-linear-tiny");
  const Model first = Load(folder);
  fs::remove(Entries().front());
  const Model second = Load(folder);
  EXPECT_EQ(second.panel_cache().written, 1);
  EXPECT_EQ(second.panel_cache().mapped, static_cast<int64_t>(first.modules().size()) - 1);
  EXPECT_EQ(second.panel_cache().note, "");
  EXPECT_EQ(Logits(second), Logits(first));
}

TEST_F(PanelCacheTest, MatricesThatCannotBeJoinedAreKeptOneByOne) {
  const fs::path folder = Copy(test::GoldenModel("qwen3-tiny"), "mixed");
  test::SafetensorsBuilder builder;
  const test::GoldenFile file(folder / "model.safetensors");
  for (const std::string& name : file.Names()) {
    test::GoldenTensor tensor = file[name];
    if (name.find("q_proj.weight") != std::string::npos) {  // bf16 -> f32
      ASSERT_EQ(tensor.dtype, "BF16");
      std::vector<std::byte> wide(2 * tensor.bytes.size());
      for (size_t i = 0; i < tensor.bytes.size(); ++i) wide[i / 2 * 4 + 2 + i % 2] = tensor.bytes[i];
      tensor.bytes = wide;
      tensor.dtype = "F32";
    }
    builder.Add(name, tensor.dtype, tensor.shape, tensor.bytes);
  }
  builder.Write(folder / "model.safetensors");
  const Result<Model> plain = Model::Load(folder);
  ASSERT_TRUE(plain.ok()) << plain.error().message();
  const auto matrices = static_cast<int64_t>(plain->modules().size());
  EXPECT_GT(matrices, static_cast<int64_t>(Model::Load(test::GoldenModel("qwen3-tiny"))->modules().size()));
  EXPECT_EQ(Load(folder).panel_cache().written, matrices);
  const Model second = Load(folder);
  EXPECT_EQ(second.panel_cache().mapped, matrices);
  EXPECT_EQ(Logits(second), Logits(*plain));
}

}  // namespace
}  // namespace billfish
