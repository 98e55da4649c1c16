// Every pipeline of tests/golden/tokenizer against the ids and texts of the reference implementation.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "billfish/tokenizer.h"
#include "test_data.h"

namespace billfish {
namespace {

using nlohmann::json;

const json& AllSets() {
  static const json sets = json::parse(FileText(GoldenFolder() / "cases.json"));
  return sets;
}

std::string NameOf(const json& set) {
  std::string name = set["tokenizer"].get<std::string>() + "_" + set.value("name", "plain");
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

class GoldenTokenizer : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    set_ = AllSets()[GetParam()];
    json file = json::parse(FileText(GoldenFolder() / set_["tokenizer"].get<std::string>()));
    if (set_.contains("override")) file.update(set_["override"]);
    auto loaded = Tokenizer::FromJson(file.dump());
    ASSERT_TRUE(loaded.ok()) << loaded.error().message();
    tokenizer_ = *loaded;
  }

  using Ids = std::vector<int32_t>;
  json set_;
  Tokenizer tokenizer_;
};

TEST_P(GoldenTokenizer, EncodesEveryTextAsTheReferenceDoes) {
  for (const json& sample : set_["cases"]) {
    const auto text = sample["text"].get<std::string>();
    const auto plain = tokenizer_.Encode(text, false);
    ASSERT_TRUE(plain.ok()) << plain.error().message();
    EXPECT_EQ(*plain, sample["ids"].get<Ids>()) << json(text);
    const auto full = tokenizer_.Encode(text, true);
    ASSERT_TRUE(full.ok()) << full.error().message();
    EXPECT_EQ(*full, sample[sample.contains("full_ids") ? "full_ids" : "ids"].get<Ids>()) << json(text);
  }
}

TEST_P(GoldenTokenizer, DecodesAsTheReferenceDoes) {
  for (const json& sample : set_["cases"]) {
    const auto text = tokenizer_.Decode(sample["ids"].get<Ids>(), false);
    ASSERT_TRUE(text.ok()) << text.error().message();
    EXPECT_EQ(*text, sample["decoded"].get<std::string>());
    const auto skipped = tokenizer_.Decode(sample[sample.contains("full_ids") ? "full_ids" : "ids"].get<Ids>(), true);
    ASSERT_TRUE(skipped.ok()) << skipped.error().message();
    EXPECT_EQ(*skipped, sample[sample.contains("skipped") ? "skipped" : "decoded"].get<std::string>());
  }
  for (const json& sample : set_["decodes"]) {
    const auto text = tokenizer_.Decode(sample["ids"].get<Ids>(), false);
    ASSERT_TRUE(text.ok()) << text.error().message();
    EXPECT_EQ(*text, sample["decoded"].get<std::string>()) << sample["ids"];
  }
}

TEST_P(GoldenTokenizer, StreamsTheSameTextThatItDecodes) {
  for (const json& sample : set_["cases"]) {
    StreamDecoder stream(tokenizer_, false);
    std::string streamed;
    for (const int32_t id : sample["ids"].get<Ids>()) {
      const auto part = stream.Push(id);
      ASSERT_TRUE(part.ok()) << part.error().message();
      streamed += *part;
    }
    streamed += stream.Flush();
    EXPECT_EQ(streamed, sample["decoded"].get<std::string>()) << sample["text"];
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizer, testing::Range(size_t{0}, AllSets().size()),
                         [](const auto& set) { return NameOf(AllSets()[set.param]); });

}  // namespace
}  // namespace billfish
