// The tokenizer of the trained model against the ids that other software made from the same texts.
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "billfish/npy.h"
#include "billfish/tokenizer.h"
#include "test_data.h"

namespace billfish {
namespace {

class TrainedTokenizer : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = TestData() / "tiny-moe";
    if (!std::filesystem::exists(folder_ / "tokenizer.json")) GTEST_SKIP() << "no trained model in " << folder_;
    auto loaded = Tokenizer::Load(folder_);
    ASSERT_TRUE(loaded.ok()) << loaded.error().message();
    tokenizer_ = *loaded;
  }

  std::filesystem::path folder_;
  Tokenizer tokenizer_;
};

TEST_F(TrainedTokenizer, ReproducesTheIdsOfTheHeldOutText) {
  const auto expected = ReadNpyIds(folder_ / "val_ids.npy");
  ASSERT_TRUE(expected.ok()) << expected.error().message();
  // The evaluation puts the separator in front of every document and strips the documents.
  const std::string text = FileText(folder_ / "val.txt"), separator = "<|endoftext|>", space = " \n";
  std::vector<int32_t> ids;
  for (size_t begin = 0; ids.size() < expected->size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    std::string document = text.substr(begin, end - begin);
    document.erase(document.find_last_not_of(space) + 1);
    document.erase(0, document.find_first_not_of(space));
    const auto part = tokenizer_.Encode(separator + document, false);
    ASSERT_TRUE(part.ok());
    ids.insert(ids.end(), part->begin(), part->end());
    begin = end + separator.size();
  }
  ids.resize(expected->size());
  EXPECT_EQ(ids, *expected);
}

TEST_F(TrainedTokenizer, ReproducesThePromptsAndContinuations) {
  const auto golden = nlohmann::json::parse(FileText(folder_ / "golden.json"));
  for (const auto& sample : golden["greedy"]) {
    EXPECT_EQ(*tokenizer_.Encode(sample["prompt"].get<std::string>(), true), sample["prompt_ids"].get<std::vector<int32_t>>());
    EXPECT_EQ(*tokenizer_.Decode(sample["output_ids"].get<std::vector<int32_t>>(), true), sample["text"].get<std::string>());
  }
}

TEST_F(TrainedTokenizer, DecodesTheHeldOutTextBackToItself) {
  const std::string text = FileText(folder_ / "val.txt");
  const auto start = std::chrono::steady_clock::now();
  const auto ids = tokenizer_.Encode(text, false);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(*tokenizer_.Decode(*ids, false), text);
  RecordProperty("encode_milliseconds", static_cast<int>(seconds.count() * 1000));
  EXPECT_LT(seconds.count(), 10.0);
}

TEST_F(TrainedTokenizer, StreamsTheSameTextThatItDecodes) {
  const std::string text = FileText(folder_ / "val.txt").substr(0, 20000);
  const auto ids = tokenizer_.Encode(text, false);
  ASSERT_TRUE(ids.ok());
  StreamDecoder stream(tokenizer_, false);
  std::string streamed;
  for (const int32_t id : *ids) streamed += *stream.Push(id);
  streamed += stream.Flush();
  EXPECT_EQ(streamed, text);
}

TEST_F(TrainedTokenizer, EncodesTheSameFromSeveralThreads) {
  const std::string text = FileText(folder_ / "val.txt").substr(0, 50000);
  const auto expected = tokenizer_.Encode(text, false);
  std::vector<std::vector<int32_t>> found(4);
  std::vector<std::thread> threads;
  for (auto& ids : found) threads.emplace_back([&] { ids = *tokenizer_.Encode(text, false); });
  for (auto& thread : threads) thread.join();
  for (const auto& ids : found) EXPECT_EQ(ids, *expected);
}

TEST_F(TrainedTokenizer, KnowsItsVocabularyAndSpecialTokens) {
  EXPECT_EQ(tokenizer_.vocab_size(), 4096);
  EXPECT_EQ(tokenizer_.TokenToId("<|endoftext|>"), 0);
  EXPECT_EQ(tokenizer_.IdToToken(1), "!");
  EXPECT_EQ(tokenizer_.IdToToken(4096), std::nullopt);
  EXPECT_EQ(tokenizer_.TokenToId("no such token"), std::nullopt);
  EXPECT_TRUE(tokenizer_.IsSpecial(0));
  EXPECT_FALSE(tokenizer_.IsSpecial(1));
  EXPECT_EQ(tokenizer_.eos_id(), 0);
  EXPECT_EQ(tokenizer_.bos_id(), std::nullopt);
}

}  // namespace
}  // namespace billfish
